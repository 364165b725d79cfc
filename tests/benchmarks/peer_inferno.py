"""inferno's side of the table: `MaxRateClassifier`, one bin at a time, on tensors made beforehand.

The step is `forward` with a label: the class of the sample, then the update. In evaluation and inference mode, which
takes a little less than `no_grad`; one thread. The part `predict` is `forward` without a label.
"""

import torch
from inferno.learn import MaxRateClassifier
from tests.benchmarks import data
from tests.benchmarks.workers import Work, median_ms, serve

PACKAGES = ("inferno-ai", "torch", "numpy")


def maxrate() -> Work:
    rates, labels = data.labelled_rates()
    classifier = MaxRateClassifier(data.FEATURES, data.CLASSES).eval()
    bins = [
        (torch.from_numpy(sample)[None], torch.tensor([label]))
        for sample, label in zip(rates, labels.tolist(), strict=True)
    ]
    answers = torch.cat([classifier(sample, label) for sample, label in bins])
    next_bin = data.in_turn(bins)
    return Work(
        lambda: classifier(*next_bin()),
        {"classes": answers.numpy()[data.CLASSES :]},
        lambda: {"predict": median_ms(lambda: classifier(bins[0][0], None))},
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        serve(PACKAGES, {"maxrate_step_1024x10": maxrate})
