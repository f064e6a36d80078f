"""The report: one HTML file from the folders that evaluation, training and ablation write."""
