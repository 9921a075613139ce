"""The program: `interavatar`, and `python -m pipelines` (for `ray job submit --working-dir .`)."""

from pipelines.engine.terminal import leave_terminal


def main() -> None:
    """Entry point; leaves the terminal before any library is imported."""
    leave_terminal()
    from pipelines.cli import app as cli

    cli.main()


if __name__ == "__main__":
    main()
