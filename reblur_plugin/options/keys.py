"""Every key of an option file: its values, what it does and its default. No other place declares a key.

`options.schema` makes what `options.checks` and editors check by, `options.page` makes docs/options.md. Blocks of a
registered class (networks, losses, metrics, other data sets and models) are open here: the class's own signature checks
them (`options.components`). Choices that the core makes are those of `core.choices`.
"""

from __future__ import annotations

from typing import get_args

from reblur_plugin.core import choices
from reblur_plugin.options.values import (
    COMPONENT,
    COUNT,
    FILE,
    FLAG,
    KNOTS,
    MILESTONES,
    NAME,
    NATURAL,
    OPEN,
    POSITIVE,
    SEED,
    SEQUENCES,
    SIZE,
    TEXT,
    WEIGHT,
    Schema,
    attributes,
    block,
    choice,
    entry,
    key,
)

_NETWORKS = {"g": "M_D", "r": "M_R", "d": "the discriminator of L_Adv"}
_BASICSR_READS_IT = "Read by BasicSR's own pipelines alone."

DATASET: Schema = {
    "type": key(TEXT, "`DeblurPairDataset`, or another registered data set, which has keys of its own."),
    "name": key(NAME, "Name in the log and in the folder of results; the block's name by default."),
    "layout": key(
        choice("gopro", "reds", "hide", "realblur", "folders", "photographs", "packed"),
        "How the images are stored; docs/data.md shows each layout.",
        default="gopro",
    ),
    "dataroot": key(TEXT, "Folder of the images, for all layouts but `folders`."),
    "dataroot_lq": key(TEXT, "Folder of the blurry images, for `folders`."),
    "dataroot_gt": key(TEXT, "Folder of the sharp images, for `folders`."),
    "blur_key": key(NAME, "Which blur of GOPRO: `blur_gamma` or `blur` (D11).", default="blur_gamma"),
    "meta_info_file": key(TEXT, "List of the pairs, for `realblur`."),
    "only": key(SEQUENCES, "Sequences to keep; all by default."),
    "without": key(SEQUENCES, "Sequences to leave out."),
    "augment": key(
        choice("nah", "flip", "none"),
        "Augmentation of training patches: flips, colours and noise as in the first author's code, flips alone, or "
        "none (D13).",
        default="nah",
    ),
    "cache": key(FLAG, "Keep decoded images in memory, in every worker.", default=False),
    "gt_size": key(COUNT | {"maximum": 100_000}, "Side of a training patch in pixels; a training needs it (D8)."),
    "seed": key(SEED, "Seed of crops and augmentation; `manual_seed` by default."),
    "batch_size_per_gpu": key(
        COUNT | {"maximum": 100_000}, "Images in a batch of one process; a training needs it (D8)."
    ),
    "num_worker_per_gpu": key(
        NATURAL | {"maximum": 1024}, "Processes that read images, for each process that trains.", default=0
    ),
    "pin_memory": key(FLAG, _BASICSR_READS_IT),
    "prefetch_mode": key(choice("cpu", "cuda"), _BASICSR_READS_IT),
    "dataset_enlarge_ratio": key(COUNT, _BASICSR_READS_IT),
}

_PRETRAINED = {
    label: {
        f"pretrain_network_{label}": key(FILE, f"Checkpoint of {name} to begin with; a test needs its networks'."),
        f"param_key_{label}": key(
            TEXT,
            "Entry of the checkpoint; by default the raw weights `params` in training, and else the averaged ones, "
            "`params_ema`, where there are some. In files of others state_dict, model, net, net_g or "
            "generator is found.",
        ),
        f"strict_load_{label}": key(FLAG, "Refuse a checkpoint that fits the network in part.", default=True),
    }
    for label, name in _NETWORKS.items()
}
PATH: Schema = {
    **_PRETRAINED["g"],
    **_PRETRAINED["r"],
    **_PRETRAINED["d"],
    "resume_state": key(FILE, "Training state to go on from."),
    "ignore_resume_networks": key(TEXT, _BASICSR_READS_IT),
}

OPTIMIZER: Schema = {
    "type": key(
        TEXT, "An optimiser of PyTorch, whose other arguments may follow; the paper's is Adam.", default="Adam"
    ),
    "lr": key(POSITIVE, "Learning rate; the paper's is 1e-4 (section S1)."),
}
SCHEDULER: Schema = {
    "type": key(choice("MultiStepLR"), "The paper's schedule (section S1).", default="MultiStepLR"),
    "milestones": key(
        MILESTONES, "Where the learning rate changes, in iterations or parts of the training.", default=[]
    ),
    "gamma": key(POSITIVE, "Factor of the learning rate at each milestone.", default=0.5),
}
REBLUR: Schema = {
    "loss_weight": key(WEIGHT, "lambda, the weight of L_Reblur (Eq. 6).", default=1.0),
    "sharp_reference": key(
        choice(*choices.SHARP_REFERENCES),
        "What L_Sharp preserves (Eq. 3, Table 4): M_D(S), S, or nothing, so that there is no L_Sharp.",
        default="pseudo",
    ),
    "sharp_weight": key(
        KNOTS, "Weight of L_Sharp (Eq. 4); a list runs in straight lines from knot to knot (D10).", default=1.0
    ),
    "order": key(choice(*choices.ORDERS), "Which network a batch updates first (D9).", default="reblur_first"),
}
_OPTIMIZER = entry("object", "an optimiser such as {type: Adam, lr: 1e-4}", required=["lr"], properties=OPTIMIZER)
_LOSS = COMPONENT | {"properties": {"type": TEXT, "loss_weight": WEIGHT}}
TRAIN: Schema = {
    "total_iter": key(COUNT, "Length in iterations; this or `total_epoch` is needed."),
    "total_epoch": key(COUNT, "Length in epochs of images // (batch x processes) iterations."),
    "pixel_opt": key(_LOSS, "L_1 of M_D (Eq. 6): a registered loss such as `MultiScaleL1Loss` (D6)."),
    "reblur_opt": key(block(REBLUR), "Train M_R by L_R (Eq. 4) and M_D by L_Reblur (Eq. 5); belongs to `network_r`."),
    "perceptual_opt": key(COMPONENT, "L_VGG of M_D: a registered loss such as `PerceptualLoss` (D16)."),
    "gan_opt": key(_LOSS, "L_Adv: a registered loss such as `GANLoss`; belongs to `network_d` (D7)."),
    **{
        f"optim_{label}": key(_OPTIMIZER, f"Optimiser of {name}, which can't be trained without.")
        for label, name in _NETWORKS.items()
    },
    "scheduler": key(block(SCHEDULER), "Schedule of the learning rates of all networks that have none of their own."),
    **{
        f"scheduler_{label}": key(block(SCHEDULER), f"Schedule of {name}'s own, in the place of `scheduler`.")
        for label, name in (_NETWORKS | {"d": "the discriminator"}).items()
    },
    "warmup_iter": key(
        entry("integer", "a whole number, -1 for none", minimum=-1),
        "Iterations in which learning rates rise from 0 (D12).",
        default=-1,
    ),
    "grad_clip": key(WEIGHT, "Limit of the norm of each network's gradient; 0 sets none (D12).", default=0),
    "accumulate": key(
        COUNT | {"maximum": 10_000}, "Compute a batch in so many parts; the step is the whole batch's.", default=1
    ),
    "ema_decay": key(
        entry("number", "a number from 0 to below 1", minimum=0, exclusiveMaximum=1),
        "Average M_D's weights with this decay; they are saved as `params_ema` and used in validation and tests.",
        default=0,
    ),
    "freeze_deblur_net": key(
        FLAG, "Train M_R alone, on a trained M_D that stays as it is (Table 1, D25).", default=False
    ),
    "amp": key(
        choice(*get_args(choices.TrainingAmp)),
        "Mixed precision; `auto` takes bf16 where the device has units for it, else float32; float32 by default.",
    ),
    "channels_last": key(FLAG, "Compute in this memory layout, the faster one on most devices.", default=False),
    "compile": key(FLAG, "Translate the networks by torch.compile; the first iterations take minutes.", default=False),
}

_TTA_VALUES: dict[str, Schema] = {
    "steps": NATURAL | {"maximum": 100_000},
    "lr": POSITIVE,
    "optimizer": choice(*get_args(choices.Optimizer)),
    "target": choice(*get_args(choices.Target)),
    "histogram": choice(*get_args(choices.HistogramMatching)),
    "parameters": {
        "type": ["string", "array"],
        "pattern": "^all$",
        "items": TEXT,
        "title": "all or a list of names of weights",
    },
    "max_change": POSITIVE | {"type": ["number", "null"]},
    "amp": choice(*get_args(choices.Amp)),
    "channels_last": FLAG,
    "fused": FLAG,
    "max_memory": SIZE,
}
_SAID = attributes(choices.AdaptConfig)
TTA: Schema = {
    name: key(values, _SAID.get(name, ""), default=getattr(choices.AdaptConfig, name))
    for name, values in _TTA_VALUES.items()
}
METRIC: Schema = {
    "type": key(TEXT, "A registered metric; further keys are its arguments."),
    "crop_border": key(NATURAL, "Pixels at each border that aren't scored."),
    "better": key(
        {"enum": ["higher", "lower"], "title": "higher or lower"},
        "Which values are the better ones; needed for metrics that aren't known here.",
    ),
}
KNOWN_BETTER = dict.fromkeys(("calculate_psnr", "calculate_ssim", "reblur_ssim"), "higher")  # the default of `better`
KNOWN_BETTER |= dict.fromkeys(("calculate_niqe", "reblur_lpips", "reblur_niqe", "reblurability"), "lower")
KNOWN_BETTER |= {"reblur_sharpness": "higher", "reblur_brightness": "lower"}
VAL: Schema = {
    "val_freq": key(COUNT, "Iterations from one validation to the next; a test doesn't read it."),
    "metrics": key(
        entry("object", "a block of metrics", additionalProperties=COMPONENT | {"properties": METRIC}),
        "What is measured, each under a name of your choice (D14).",
    ),
    "best": key(
        entry("string", "the name of a metric"),
        "Keep `net_g_best.pth` and `net_r_best.pth` by this metric of the deblurred images of the first set.",
    ),
    "tta": key(block(TTA), "Adapt M_D to each image (Algorithm 1); the defaults are the paper's."),
    "adapted_steps": key(
        {"type": "array", "items": NATURAL, "title": "a list of steps such as [0, 1, 3, 5]"},
        "Score and show images after these steps of adaptation too.",
        default=[],
    ),
    "input_metrics": key(FLAG, "Score the blurry images too.", default=False),
    "reblurred": key(FLAG, "Score M_R(L) against B, and L against B beside it (Table 1).", default=False),
    "comparison": key(FLAG, "Write a picture of all stages side by side, where pictures are written.", default=False),
    "save_img": key(FLAG, "Write pictures; a test does by default.", default=False),
    "suffix": key(NAME, "End of the names of a test's pictures."),
    "batch_size": key(
        COUNT, "Images of one size, deblurred at once where nothing adapts; results may differ by rounding.", default=1
    ),
    "pbar": key(FLAG, "Show a progress bar in a terminal; a test does by default.", default=False),
}
LOGGER: Schema = {
    "print_freq": key(COUNT, "Iterations from one line of the log to the next."),
    "save_checkpoint_freq": key(COUNT, "Iterations from one checkpoint and training state to the next."),
    "keep_checkpoints": key(COUNT, "How many of the newest ones are kept; all by default."),
    "use_tb_logger": key(FLAG, "Write curves for TensorBoard.", default=False),
    "wandb": key(OPEN, "Copy the curves to Weights & Biases under the `project` that it names."),
}
FILE_KEYS: Schema = {
    "name": key(NAME, "Name of the experiment and of its folder in experiments/ or results/."),
    "model_type": key(TEXT, "`ReblurModel`, or another registered model, which has keys of its own."),
    "network_g": key(COMPONENT, "M_D: a registered network and its arguments, e.g. `{type: SRN}`."),
    "network_r": key(
        COMPONENT, "M_R: a registered network and its arguments, e.g. `{type: ReblurNet, num_blocks: 2}`."
    ),
    "network_d": key(COMPONENT, "The discriminator of L_Adv (D7), e.g. `{type: ReblurDiscriminator}`."),
    "deblurred_output": key(
        {"anyOf": [TEXT, NATURAL], "title": "first, last, a number from 0 or a name"},
        "Which of M_D's outputs is L: the `first` or `last` of full size, a number or the key of a dictionary. Needed "
        "where several could be meant, such as the stages of MPRNet (`first`) and HINet (`last`).",
    ),
    "num_gpu": key(
        {"anyOf": [NATURAL, {"const": "auto"}], "title": "auto or a whole number >= 0"},
        "GPUs to use: 0 computes on the CPU, `auto` takes those that are there.",
        default="auto",
    ),
    "manual_seed": key(SEED, "Seed of everything that is drawn.", default=0),
    "find_unused_parameters": key(FLAG, "DistributedDataParallel's argument of this name.", default=False),
    "dist_params": key(COMPONENT, "`backend` of several processes with CUDA: `nccl` by default."),
    "scale": key(
        entry("integer", "1", const=1), "BasicSR's key for super-resolution; deblurring keeps the size.", default=1
    ),
}


def defaults(keys: Schema, *names: str) -> Schema:
    """Return the defaults of the keys of a block, or of those with these names: `defaults(VAL) | block`."""
    return {name: keys[name]["default"] for name in names or keys if "default" in keys[name]}
