"""What kind of file somebody sent, by its first bytes, and how much of one is taken. Without torch and decoders."""

# Of a file that comes from elsewhere: more is refused before it is kept.
MOST_BYTES = 64 << 20
# Of one picture, 8K among them, and pictures that are decoded of one file.
MOST_PIXELS, MOST_DECODED = 1 << 25, 4000
MAGIC_BYTES = 16
KINDS = "mp4, mov, webm, gif, png, jpeg or webp"


def kind_of(head: bytes) -> str | None:
    """The suffix that a file of these first `MAGIC_BYTES` bytes should have; None: no picture or video that is taken.

    Nothing else is to be guessed from a file of others: FFmpeg would find playlists in it, which name more files.
    """
    if head[4:8] == b"ftyp":
        # Brands of still pictures in the same container.
        return None if head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1") else ".mp4"
    for magic, suffix in (
        (b"\x1aE\xdf\xa3", ".webm"), (b"GIF87a", ".gif"), (b"GIF89a", ".gif"),
        (b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"),
    ):  # fmt: skip
        if head.startswith(magic):
            return suffix
    return ".webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None
