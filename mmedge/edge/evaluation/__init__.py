"""What maps and bundles are worth: metrics, labelled scenes, reference samples, reports."""
