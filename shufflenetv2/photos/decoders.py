"""Pillow's decoders without what photos do not need, and what hostile files could make dear: reading all metadata."""

from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile


class Jpeg(JpegImageFile):
    """Pillow reads every EXIF tag for the resolution as soon as it opens the file: 65 kB can ask for 300 MB."""

    def _read_dpi_from_exif(self) -> None:
        pass


class Tiff(TiffImageFile):
    """As the pixels lie, and without Pillow's own limit on their number.

    Pillow would read all EXIF directories after decoding, and turn the picture where no damaged tag stops it.
    """

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]  # as Pillow does
        ImageFile.ImageFile.load_prepare(self)

    def load_end(self) -> None:
        self._size = self._tile_size
