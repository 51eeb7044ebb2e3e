"""What a person concludes from each figure: a sentence or two, in the words of the page.

Written after looking at the records that lie in the repository; the numbers themselves are drawn from the records.
"""

FINDINGS: dict[str, str] = {
    "latent": (
        "A pipeline of the Stable Diffusion class on Fashion-MNIST, always asked for clothing: 0.9 within 100 labels\n"
        "on each of three tastes and two seeds, all updates behind the gate. With the β of pixels it is not reached;\n"
        "[the page of the text backbone](latent.md) says why."
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
    "seed are leads, not results. K and the sizes of an update were chosen from runs of an earlier recipe, which took\n"
    "every label at its word and drew A for each user: of K = 100, 250 and 400 the last was best on both of the hard\n"
    "tastes, and more forgetting (enhancer 2), more rows of dislikes and more Adam steps each raised success by up to\n"
    "0.08 and lowered coverage. Those runs are in the repository's history.\n\n"
    "How strongly a label is doubted (`trust`) was chosen from trials whose records were not kept: three "
    "strengths, one\n"
    "seed each, looked at on the same evaluation seeds, so that the choice itself is a lead. With 20 % flipped labels\n"
    "on {0, 3, 8} doubt raised success from 0.42 to 0.67 and lowered coverage from 0.95 to 0.65; twice as much of it\n"
    "ended a changed taste on one class, at coverage 0.04."
)
