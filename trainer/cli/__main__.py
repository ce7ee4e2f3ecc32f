"""`python -m trainer.cli`: the same as `trainledger`, by whichever Python is running."""

from trainer.cli.main import main

if __name__ == "__main__":
    main()
