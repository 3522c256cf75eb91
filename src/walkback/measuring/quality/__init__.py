"""Sample quality, measured against held-out data without a pretrained network.

wasserstein   sliced Wasserstein distance, entropic Wasserstein distance
coverage      precision, recall, density and coverage by nearest neighbours
features      a classifier trained on the labels of a data set, whose features stand in for Inception's
frechet       Fréchet and kernel distances of features, the classifier's score
figures       all of them with errors, and the same figures for fresh data in place of the samples

Statistics of sets take states or features `(N, ...)` and return numbers; `figures` turns them into records.
"""
