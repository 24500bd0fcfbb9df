"""What the words of the report mean."""

TERMS = {
    "AUC": "Probability that a random positive is scored above a random negative, a tie counting one half. Exact.",
    "95% interval": "Would hold the value of all such rows in 95 of 100 samples. AUC: DeLong's error; with a group "
    "key, rows of one group (a user, say) may depend on each other (Obuchowski). Others: quantiles over resampled "
    "groups. Without a group key rows count as independent: too narrow where users repeat.",
    "GAUC": "AUC inside every group that has both classes, averaged with its rows (or positives, or one) as weight.",
    "PR-AUC": "Precision averaged over the positives (average precision); a random ranking has the positive rate.",
    "Log loss": "Mean negative log likelihood of the labels in nats, computed from logits without clipping.",
    "Normalised entropy (NE)": "Log loss divided by that of always predicting the mean rate.",
    "RIG": "Relative information gain: 1 − normalised entropy, the share of the labels' entropy that is explained.",
    "Brier score": "Mean squared difference of probability and label.",
    "Calibration": "Mean predicted probability divided by the observed positive rate.",
    "ECE": "Expected calibration error: mean gap between predicted and observed rate over bins of equally many rows. "
    "Noise alone makes it larger than 0: compare it at equal bins and rows only.",
    "KS": "Largest gap between the score distributions of positives and negatives (Kolmogorov-Smirnov).",
    "Gain, lift at x%": "Share of all positives among the x% of rows that score highest; lift is that over x%.",
    "− rest, adj. p": "AUC within the slice minus AUC within all other rows; the chance of as large a difference if "
    "there were none, adjusted over all slices (Benjamini-Hochberg). A small one says that ranking is harder or easier "
    "there, not that the model is at fault.",
    "Frequency": "Ids by their look-ups in training: head has half of them or more, head and torso 90% or more.",
    "PSI": "Population stability index between train and test: 0 is no drift, above .25 is large by custom.",
    "Alone": "AUC on test rows of one feature: a number as it is, an id by the label rate that training rows give it.",
    "Reliability curve": "Rows in order of prediction, in bins of equally many; bars are 95% Wilson intervals.",
    "Of the possible": "(AUC − 0.5) / (AUC of the true probabilities − 0.5), where generated data knows them.",
    "Undefined": "The value does not exist for these rows, for the reason given; it is never shown as zero.",
}
