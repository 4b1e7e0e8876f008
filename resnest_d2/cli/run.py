"""``train`` and ``evaluate``."""

import argparse

from .common import data_pairs, execute, process_options


def train(args: argparse.Namespace) -> int:
    from ..engine import RunRequest, prepare, run

    def build() -> RunRequest:
        late = [word for word in args.opts[::2] if word.startswith("--")]
        if late:
            raise ValueError(f"{late[0]} must stand before the KEY VALUE pairs, which come last")
        return RunRequest(
            config=args.config_file,
            opts=tuple(args.opts),
            train=data_pairs(args, "train"),
            val=data_pairs(args, "val"),
            classes=args.classes,
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
