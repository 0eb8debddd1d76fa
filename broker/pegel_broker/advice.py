"""What to do about an error of the operating system, in one line for people."""

from __future__ import annotations

import errno


def advise(error: OSError) -> str:
    """The file, what is wrong with it, and what can be done."""
    if not error.filename:
        return str(error)
    return f"{error.filename}: {error.strerror}; {_ADVICE.get(error.errno or 0, _ADVICE_ELSE)}"


_ADVICE_ELSE = "mend that, or use another directory (--data-dir)"
_ADVICE = {
    errno.ENOENT: "nothing can be made there: use another directory (--data-dir)",
    errno.EACCES: "let this user write there (chown), or use another directory (--data-dir)",
    errno.EPERM: "let this user write there (chown), or use another directory (--data-dir)",
    errno.ENOSPC: "make room, then start again",
    errno.EROFS: "use a directory that can be written to (--data-dir)",
    errno.ENOTDIR: "a file is in the way: use another directory (--data-dir)",
    errno.EEXIST: "a file is in the way: use another directory (--data-dir)",
}
