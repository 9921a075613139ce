"""`python -m pipelines` is the same program as `interavatar` (for `ray job submit --working-dir .`)."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
