"""Comparisons of methods on one data set: the request, what makes it fair, the table, the page, published figures."""
