"""walkback: learn transition operators, stochastic maps s → s' whose repeated application samples the data.

The way of one training step through the modules::

    data → walk (operators, kernels, schedules, processes) → objectives → training → checkpoint

What can be chosen by name comes from plugins, through `hookspecs` and `registry`. Importing `walkback` alone
costs nothing: import the module that you need.
"""
