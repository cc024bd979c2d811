"""Verification on drawn faces: no download, and who is who is known."""

from __future__ import annotations

from farl_lightning.datamodules.faces import SPLITS
from farl_lightning.datamodules.people import PeopleDataModule, Trial, checked_pictures
from farl_lightning.datamodules.synthetic_dense import DrawnSplits
from farl_lightning.datasets.drawn_identities import DrawnIdentities, draw_pairs, identity_labels
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.errors import ConfigError
from farl_lightning.transforms.dense_config import DenseTransformConfig, global_recipe

LIST = "drawn"
"""Name of the one trial."""


class SyntheticIdentitiesDataModule(PeopleDataModule, DrawnSplits):
    """Drawn people to train on, and pairs of pictures of other people to validate and to test on.

    The same pictures tell how often a person is found by rank: a person's first picture is the gallery.

    The pairs are made as LFW's: ten folds that share nobody, in each as many pairs of one person as of two. Nobody is
    in two splits. Pictures of a person differ in expression, age (up to 3 years), pose, light, background, hats,
    glasses and what is worn.

    Args:
        train_people: Number of people to train on.
        val_people: Number of people in the validation pairs.
        test_people: Number of people in the test pairs.
        pictures_per_identity: Pictures of each person, in every split.
        val_pairs: Number of validation pairs, a multiple of 20.
        test_pairs: Number of test pairs, a multiple of 20.
        pictures_per_person: Training pictures of one person that come together, as triplets need them; see
            :class:`~farl_lightning.datamodules.people.GroupedBatches`. None shuffles pictures one by one.
        image_size: Side of the drawn pictures in pixels.
        faces_seed: Which people are drawn. Independent of ``seed``, so that runs with other seeds meet the same people.
        cache: Draw every picture once, before the first batch, into memory that workers share.
        transform: Crop, augmentation and size; None takes the recipe for whole faces at ``image_size``.
        batch_size: Samples per batch and process.
        eval_batch_size: The same in evaluation; None means ``batch_size``.
        num_workers: Loader processes per training process.
        seed: Key of shuffling, augmentation and of the share that ``train_fraction`` keeps.
        train_fraction: Share of the training pictures that is used; see
            :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        keep_epoch_length: See :class:`~farl_lightning.datamodules.faces.DenseDataModule`.
        prefetch_factor: Batches that each worker keeps ready.
        pin_memory: Page-locked batches; None means whenever there is a GPU.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(
        self,
        train_people: int = 512,
        val_people: int = 60,
        test_people: int = 200,
        pictures_per_identity: int = 8,
        val_pairs: int = 600,
        test_pairs: int = 2000,
        pictures_per_person: int | None = None,
        image_size: int = 96,
        faces_seed: int = 0,
        cache: bool = True,
        transform: DenseTransformConfig | None = None,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_fraction: float = 1.0,
        keep_epoch_length: bool = True,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        people = {"train": train_people, "val": val_people, "test": test_people}
        for split, count in people.items():
            if count < 2:
                raise ConfigError(f"{split}_people is {count}; it takes at least 2 to tell people apart")
        self.pictures_per_person = checked_pictures(pictures_per_person)
        self.pair_counts = {"val": val_pairs, "test": test_pairs}
        super().__init__(
            identity_labels(train_people),
            {split: count * pictures_per_identity for split, count in people.items()},
            image_size,
            pictures_per_identity,
            faces_seed,
            cache,
            transform=transform,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
            train_fraction=train_fraction,
            keep_epoch_length=keep_epoch_length,
            prefetch_factor=prefetch_factor,
            pin_memory=pin_memory,
        )
        self._pairs = {
            split: draw_pairs(people[split], pictures_per_identity, count, faces_seed + SPLITS.index(split))
            for split, count in self.pair_counts.items()
        }

    def label(self, faces: SyntheticFaces) -> DrawnIdentities:
        """Say who is on drawn faces."""
        return DrawnIdentities(faces, self.cache)

    def default_transform(self) -> DenseTransformConfig:
        """Return the recipe for whole faces at the size of the drawn pictures."""
        return global_recipe(size=self.image_size)

    def trials(self, split: str) -> dict[str, Trial]:
        """Return the pairs of a split; who is on their pictures is known as well.

        Args:
            split: ``"val"`` or ``"test"``.

        Raises:
            ConfigError: If it is another split.
        """
        faces = self.faces(split)
        if split not in self._pairs or not isinstance(faces, DrawnIdentities):
            raise ConfigError(f"there are no pairs of split '{split}'; allowed: {', '.join(self._pairs)}")
        return {LIST: Trial(faces, self._pairs[split], faces.identities)}
