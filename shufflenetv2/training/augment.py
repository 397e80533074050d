"""What training does to the photos: they are dealt to batches, then changed one by one in the loaders' processes, then
batch by batch beside the model.

The loaders decode, and what needs the whole photo happens there. Shifting, flipping, enlarging and mixing are done on
the batch: one tensor operation instead of hundreds, which matters where the photos are small.
"""

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..description import Preprocess
from ..devices import Group
from ..errors import ImageError
from ..photos.decode import open_photo
from ..photos.folders import LabelledPhotos
from ..photos.framing import cut
from .recipe import Augmentation

Items = TypeVar("Items", list[int], range)


class TrainingPhotos(Dataset[tuple[Tensor | ImageError, int]]):
    """Decoded photos, augmented one by one: ``uint8 (3, S, S)`` and the label.

    A photo that cannot be used comes back as its ``ImageError``, not raised: the traceback that a DataLoader would
    wrap around it says nothing to the user.
    """

    def __init__(self, photos: LabelledPhotos, augmentation: Augmentation, size: int) -> None:
        from torchvision.transforms import v2  # `train --help` works without it

        self.photos = photos
        self.resizes = augmentation.photo_size is not None
        steps: list[nn.Module] = []
        if augmentation.photo_size is None:
            steps.append(v2.RandomResizedCrop(size, scale=(augmentation.min_scale, 1.0), antialias=True))
        else:
            steps += [v2.Resize(augmentation.photo_size, antialias=True), v2.CenterCrop(augmentation.photo_size)]
        if augmentation.trivial_augment:
            steps.append(v2.TrivialAugmentWide())
        steps.append(v2.PILToTensor())
        if augmentation.random_erasing:
            steps.append(v2.RandomErasing(augmentation.random_erasing))
        self.transform = v2.Compose(steps)
        # The common case of photos that have the size asked for costs only its decoding.
        plain = self.resizes and not (augmentation.trivial_augment or augmentation.random_erasing)
        self.ready_size = (augmentation.photo_size, augmentation.photo_size) if plain else None

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor | ImageError, int]:
        try:
            image = open_photo(self.photos.paths[index])
        except ImageError as error:
            return error, self.photos.labels[index]
        if image.size == self.ready_size:
            return _to_tensor(image), self.photos.labels[index]
        if self.resizes:
            image = image.crop(cut(*image.size))  # as PhotoTransform: a very long photo, resized, would fill the memory
        return self.transform(image), self.photos.labels[index]


def _to_tensor(image: Image.Image) -> Tensor:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.view(image.height, image.width, 3).permute(2, 0, 1)


def collate(items: Sequence[tuple[Tensor | ImageError, int]]) -> tuple[Tensor, Tensor] | ImageError:
    """``uint8 (N, 3, S, S)`` and ``int64 (N,)``, or the first error among the photos."""
    images = []
    for image, _ in items:
        if isinstance(image, ImageError):
            return image
        images.append(image)
    return torch.stack(images), torch.tensor([label for _, label in items])


def epoch_batches(
    photos: TrainingPhotos, count: int, group: Group, workers: int, *seeds: int, balanced: bool = False
) -> DataLoader[Any]:
    """``count`` batches for this process: one permutation of all photos, dealt to the processes in turns.

    Args:
        photos: as each process sees them.
        count: the same in each.
        group: the processes.
        workers: that decode.
        seeds: what the order depends on, and with the process's number its random choices.
        balanced: draw as many photos with replacement instead, each class as likely as any other.
    """
    generator = torch.Generator().manual_seed(derived_seed(*seeds))
    shuffled = torch.randperm(len(photos), generator=generator)
    if balanced:
        labels = torch.tensor(photos.photos.labels)
        chances = (1 / labels.bincount().double())[labels]
        shuffled = torch.multinomial(chances, len(photos), replacement=True, generator=generator)
    order: list[int] = shuffled.tolist()
    return DataLoader(
        photos,
        batch_sampler=deal(order, count * group.size)[group.rank :: group.size],
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(derived_seed(*seeds, group.rank)),  # the workers' seeds come from it
        pin_memory=group.device.type == "cuda",
    )


def class_weights(photos: LabelledPhotos) -> Tensor:
    """One a class, so that each has the same part in the loss; their mean over the photos is 1."""
    counts = torch.tensor(photos.labels).bincount(minlength=len(photos.categories))
    return len(photos) / (len(photos.categories) * counts.float())


def deal(items: Items, count: int) -> list[Items]:
    """All ``items`` in order, in ``count`` parts that differ by one at most in length."""
    ends = [len(items) * part // count for part in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def derived_seed(*parts: int) -> int:
    """A seed for these numbers (run, epoch, process) that has nothing in common with those for their neighbours."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big")


class BatchTransform:
    """``uint8 (N, 3, S, S)`` and labels to what the network learns from.

    Draws from torch's global random state. Enlarging is bilinear, as in ``PhotoTransform``: where Pillow rounds to
    whole values, this does not.
    """

    def __init__(self, augmentation: Augmentation, preprocess: Preprocess, num_classes: int) -> None:
        from torchvision.transforms import v2

        self.augmentation = augmentation
        self.mean, self.std = (255 * torch.tensor(each).view(3, 1, 1) for each in (preprocess.mean, preprocess.std))
        mixers: list[nn.Module] = []
        if augmentation.mixup:
            mixers.append(v2.MixUp(alpha=augmentation.mixup, num_classes=num_classes))
        if augmentation.cutmix:
            mixers.append(v2.CutMix(alpha=augmentation.cutmix, num_classes=num_classes))
        self.mix = v2.RandomChoice(mixers) if mixers else None

    def __call__(self, images: Tensor, labels: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Images ``float32 (N, 3, size, size)``; labels ``int64 (N,)``, or ``float32 (N, num_classes)`` if mixed."""
        if self.augmentation.photo_size is not None:
            images = shift(images, images.shape[-1] // 8)
        if self.augmentation.flip:
            flipped = torch.rand(len(images)) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1).to(images.device), images.flip(-1), images)
        batch = images.to(torch.float32)
        if batch.shape[-1] != size:
            batch = F.interpolate(batch, (size, size), mode="bilinear", align_corners=False)
        batch = batch.sub_(self.mean.to(batch.device)).div_(self.std.to(batch.device))
        if self.mix is not None:
            batch, labels = self.mix(batch, labels)
        return batch, labels


def shift(images: Tensor, most: int) -> Tensor:
    """Move every image ``(N, C, H, W)`` by its own random offset of at most ``most`` pixels, mirroring at the edges."""
    height, width = images.shape[-2:]
    padded = F.pad(images.to(torch.float32), (most, most, most, most), mode="reflect").to(images.dtype)
    offsets = torch.randint(0, 2 * most + 1, (2, len(images), 1), device="cpu").to(images.device)
    rows = offsets[0] + torch.arange(height, device=images.device)  # (N, H)
    columns = offsets[1] + torch.arange(width, device=images.device)  # (N, W)
    which = torch.arange(len(images), device=images.device).view(-1, 1, 1)
    moved = padded.permute(0, 2, 3, 1)[which, rows.unsqueeze(2), columns.unsqueeze(1)]  # (N, H, W, C)
    return moved.permute(0, 3, 1, 2)
