"""Work on one fragment. Runs on a worker, in the sandbox: no network, no files but its own."""


def process(fragment: list[str]) -> list[str]:
    """Return the result of one fragment; here: every line in upper case."""
    print(f"{len(fragment)} lines")  # what is printed can be read with: company job logs
    return [line.upper() for line in fragment]
