"""Sample quality, measured against held-out data without a pretrained network.

wasserstein   sliced Wasserstein distance, entropic Wasserstein distance
coverage      precision, recall, density and coverage by nearest neighbors
features      a classifier trained on the labels of the dataset, whose features replace those of Inception
frechet       Fréchet and kernel distances of features, the classifier's score
report        all of them with errors, and the same figures for training data in place of the samples

Statistics of sets take states or features `(N, …)` and return numbers; `report` turns them into figures.
"""
