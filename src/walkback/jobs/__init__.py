"""One request per verb, shared by the command line and Python; invalid requests are refused before work begins."""
