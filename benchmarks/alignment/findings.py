"""What a person concludes from each figure: a sentence or two, in the words of the page.

Written after looking at the records that lie in the repository; the numbers themselves are drawn from the records.
"""

FINDINGS: dict[str, str] = {
    "k-sweep": (
        "Of K = 100, 250 and 400 the last is best on both of the hard tastes: below it success is no higher and the\n"
        "Fréchet distance grows. K = 400 stays the default. One seed; 0, 600 and 800 are still to be run."
    ),
    "latent": (
        "A pipeline of the Stable Diffusion class on Fashion-MNIST, always asked for clothing: 0.9 within 100 labels\n"
        "on each of three tastes and two seeds, all updates behind the gate. With the β of pixels it is not reached;\n"
        "[the page of the text backbone](latent.md) says why."
    ),
    "update-size": (
        "More forgetting (enhancer 2), as many rows of dislikes as of likes, and ten Adam steps each raise success by\n"
        "0.0 to 0.08 and each lowers coverage and raises the Fréchet distance. None is taken into the default on the\n"
        "evidence of one seed and two tastes."
    ),
    "tuning": (
        "Runs of eight steps on one taste and one seed. Each rival's default rate and scale is to be the best of its\n"
        "row; where rows are missing from the table the sweep is not finished. Classifier guidance, which fine-tunes\n"
        "nothing, is a strong rival on this easy taste: at scale 8 success is 0.95 and coverage 0.92 after 80\n"
        "labels, where ours has 0.98 and 0.82 (100 samples each), for a seventh of our cost of showing and learning.\n"
        "It gives up coverage as its scale grows, and each of its samples needs the classifier's gradient."
    ),
}

OPEN = (
    "Open, for want of a GPU: CIFAR-10 (its code path is tested on a small RGB backbone), and the reference recipe on\n"
    "a U-Net of the paper's own size (channels 32, 64, 128, 256, two layers per block). Rows of the tables with one\n"
    "seed are leads, not results."
)
