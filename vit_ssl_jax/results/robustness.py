"""Mean corruption error of ImageNet-C (Hendrycks and Dietterich, 2019).

Of a corruption the errors at its five severities are summed and divided by AlexNet's sum;
the mean of the fifteen is the mCE, as MAE's table 13 has it. An error is 1 - top-1.
"""

import statistics

SEVERITIES = range(1, 6)
# AlexNet's error, mean of the severities: those of the authors, as AugMix's code and others'
# have them. Of the first six we also found the errors by severity, with these means.
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}


def errors(done):
    """`{imagenet_c/.../mce, CORRUPTION/.../ce}` of `{task: {metric: value}}`, as shares.

    Tasks are called CORRUPTION_SEVERITY; {} unless all 75 are there.
    """
    names = {c: [f"{c}_{severity}" for severity in SEVERITIES] for c in ALEXNET}
    if not all(name in done for five in names.values() for name in five):
        return {}
    out = {}
    for key in done["gaussian_noise_1"]:
        if key.rpartition("/")[2] != "top1":
            continue
        ratios = {}
        for corruption, five in names.items():
            error = statistics.mean(1 - done[name][key] for name in five)
            ratios[corruption] = error / ALEXNET[corruption]
        start = key.removesuffix("top1")
        out |= {f"{c}/{start}ce": ratio for c, ratio in ratios.items()}
        out[f"imagenet_c/{start}mce"] = statistics.mean(ratios.values())
    return out
