"""``train`` and ``evaluate``."""

import argparse

from .common import execute, process_options

__all__ = ["train"]


def train(args: argparse.Namespace) -> int:
    from ..engine import RunRequest, prepare, run

    def pairs(split: str) -> tuple[tuple[str, str], ...]:
        files, folders = getattr(args, f"{split}_json"), getattr(args, f"{split}_images")
        if len(files) != len(folders):
            raise ValueError(
                f"--{split}-json and --{split}-images belong together: got {len(files)} and "
                f"{len(folders)}"
            )
        return tuple(zip(files, folders, strict=True))

    def build() -> RunRequest:
        late = [word for word in args.opts[::2] if word.startswith("--")]
        if late:
            raise ValueError(f"{late[0]} must stand before the KEY VALUE pairs, which come last")
        return RunRequest(
            config=args.config_file,
            opts=tuple(args.opts),
            train=pairs("train"),
            val=pairs("val"),
            on_bad_data=args.on_bad_data,
            resume=args.resume,
            init_from=args.init_from,
            eval_only=args.eval_only,
            checkpoint=args.checkpoint,
            verify=args.verify,
            optimize=args.optimize,
            trust_pickle=args.trust_pickle,
            output_json=args.output_json,
            quiet=args.quiet,
            **process_options(args),
        )

    return execute(build, prepare, run, json=args.json)
