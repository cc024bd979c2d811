"""The help that is read first: short, with examples, and without importing anything."""

from __future__ import annotations

_PROGRAM = """\
farl-lightning: FaRL on PyTorch Lightning. Pretraining of face encoders, and everything downstream.

  farl-lightning fit --config pretrain.yaml          train on drawn faces: CPU, minutes, no download
  farl-lightning test --ckpt_path last.ckpt          evaluate a checkpoint: model and data are in it

with a model
  fit         train
  validate    evaluate on the validation split
  test        evaluate on the test split
  predict     write features of images and captions, or masks and landmarks of photographs
  check       build everything, take one step on two samples: sizes, memory, learning rates, batch
  preview     draw the first training batch after augmentation as one picture

without
  configs     list the shipped configs; 'configs show NAME' prints one
  init DIR    write a small project of your own: objective, head, config, test
  benchmark   compare encoders over tasks, ways of tuning, shares of labels and seeds: one table, one HTML page
  plan        memory, operations, communication, time and cost of a pretraining config on GPUs that are not at hand
  data        write-shards, check, index-detections
  consolidate join the shards of a checkpoint (trainer/fsdp2.yaml) into one file
  merge       add the LoRA adapters of a checkpoint to its weights: an ordinary network, without peft
  embed       features of a folder, a table or a config's data as one file, resumable
  search TEXT the faces of a folder that a text describes best, as a grid with scores
  probe       linear, ridge, SGD and k-NN probes on such features, with budgets of labels: seconds
  export      write a checkpoint as ONNX or torch.export program, photograph in, answer in its pixels out

'farl-lightning VERB --help' says more. --debug (or FARL_DEBUG=1) shows tracebacks. --version prints the version."""

_SUMMARY = {
    "fit": "Train.",
    "validate": "Evaluate on the validation split.",
    "test": "Evaluate on the test split.",
    "predict": "Write what a checkpoint says of data, beside its run: features, or masks and landmarks of photographs.",
    "check": "Build everything, take one training step on two samples, print what a run would need.",
    "preview": "Draw the first training batch after augmentation as one picture.",
}

_OWN = {
    "fit": "  --ckpt_path FILE      continue the run that wrote this checkpoint (give its config too);\n"
    "                        'last': the newest of this config's runs, or a new run when there is none\n",
    "validate": "  --ckpt_path FILE      the checkpoint; it also brings the model, and the data unless given here\n",
    "predict": "  --ckpt_path FILE      the checkpoint; it also brings the model, and the data unless given here\n"
    "  --data PhotoFolderDataModule --data.root DIR\n"
    "                        photographs; --data.faces FILE brings boxes or points, --data.detector finds faces\n",
    "check": "  --ckpt_path FILE      see whether this checkpoint fits\n",
    "preview": "  --output FILE         the picture to write (preview.png)\n"
    "  --count N             samples to draw (8)\n",
}

_VERB = """\
farl-lightning {verb}: {summary}

  farl-lightning {verb} {example}

  --config NAME         a file, or a shipped config ('farl-lightning configs' lists them); several are merged in order
{own}  --trainer.ARG VALUE   the Trainer: max_steps, devices, precision, ...
  --model.ARG VALUE     the task, to any depth: --model.optim.lr 1e-3, --model.objectives.contrastive.weight 0.5
  --data.ARG VALUE      the datamodule: --data.batch_size 32
  --model CLASS         another task, yours too: --model mymodule.MyTask is found in the current folder; so is --data
  --seed_everything N   seed of everything that is random (0)
  --ckpt_override       settings given here win over those inside the checkpoint; each one is printed
  --print_config        print the merged config and stop

  --model.help CLASS    what a task can be told ({classes}); --data.help CLASS likewise
  --help_all            every option of the Trainer"""

_EXAMPLES = {
    "fit": "--config pretrain.yaml --trainer.max_steps 100",
    "validate": "--ckpt_path runs/pretrain/version_0/checkpoints/last.ckpt",
    "test": "--ckpt_path runs/pretrain/version_0/checkpoints/last.ckpt",
    "predict": "--ckpt_path parsing.ckpt --data PhotoFolderDataModule --data.root photos",
    "check": "--config pretrain.yaml",
    "preview": "--config pretrain.yaml --output faces.png",
}


def program_help() -> str:
    """Return the help of the program."""
    return _PROGRAM


def verb_help(verb: str) -> str:
    """Return the help of a verb with a model.

    Args:
        verb: Such as ``"fit"``.
    """
    own = _OWN.get(verb, _OWN["validate"])
    return _VERB.format(verb=verb, summary=_SUMMARY[verb], example=_EXAMPLES[verb], own=own, classes="PretrainTask")
