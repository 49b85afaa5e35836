"""The process that atheris steers: it never comes back from fuzzing, and so is one of its own."""

import sys
import traceback
from pathlib import Path


def main() -> None:
    """``python -m tests.fuzz.guided TARGET SECONDS FOLDER``: fuzz, and write each new crash into the folder."""
    import atheris

    name, seconds, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    with atheris.instrument_imports(include=["pyrovae", "yaml", "zipfile"], enable_loader_override=False):
        from tests.fuzz.targets import reader, seeds, targets
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in targets[name].words)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in quoted))
    found: set[str] = set()
    with reader(name) as read:

        def attempt(content: bytes) -> None:
            try:
                read(content)
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                key = f"{type(error).__name__} at {place.filename}:{place.lineno}"
                if key not in found:
                    found.add(key)
                    (folder / f"crash-{len(found)}").write_bytes(content)
                    (folder / f"crash-{len(found)}.txt").write_text(traceback.format_exc())

        options = [
            f"-max_total_time={seconds}",
            "-rss_limit_mb=6144",
            "-timeout=60",
            "-max_len=65536",
        ]
        options += [f"-artifact_prefix={folder}/", "-print_final_stats=1"]
        options += [f"-dict={folder / 'words'}"] * bool(targets[name].words)
        atheris.Setup([sys.argv[0], *options, str(corpus)], attempt)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
