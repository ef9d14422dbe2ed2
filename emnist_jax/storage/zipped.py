"""Members of zip archives that are safe to unpack."""

import math
import zipfile


def member(
    archive: zipfile.ZipFile, name: str, most: float = math.inf
) -> zipfile.ZipInfo:
    """What an archive says of a member; unpacking gives no more bytes than that.

    Args:
      archive: the archive.
      name: of the member.
      most: bytes that it may have.

    Raises:
      KeyError: there is no such member.
      ValueError: it is larger, or packed in a way that may ask for any memory.
    """
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed by method {info.compress_type}")
    if info.file_size > most:
        raise ValueError(f"{name} claims {info.file_size} bytes, more than {most}")
    return info
