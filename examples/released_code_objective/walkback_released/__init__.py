"""The objective of the released code, for comparison with the paper's."""
