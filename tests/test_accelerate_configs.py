"""The files of recipes/accelerate: accelerate reads every key, and makes of them what their comments say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env
from torch.distributed.fsdp import CPUOffloadPolicy, StateDictType
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / "recipes" / "accelerate"
KINDS = {
    "single_gpu": DistributedType.NO,
    "ddp": DistributedType.MULTI_GPU,
    "fsdp2": DistributedType.FSDP,
    "fsdp2_offload": DistributedType.FSDP,
    "deepspeed_zero2": DistributedType.DEEPSPEED,
    "deepspeed_zero3": DistributedType.DEEPSPEED,
    "multi_node": DistributedType.FSDP,
}


def launched(name, *arguments):
    """What `accelerate launch` makes of a file: its arguments, and whether these take all keys of the file."""
    words = ["--config_file", str(FOLDER / f"{name}.yaml"), *arguments, "tools/train.py", "recipes/sfe.yaml"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    return args


def plugin_environment(name, monkeypatch, *arguments):
    args = launched(name, *arguments)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        _, environment = prepare_deepspeed_cmd_env(args)
    else:
        environment = prepare_multi_gpu_env(args)
    for key, value in environment.items():
        if key.startswith(("FSDP_", "ACCELERATE_")):
            monkeypatch.setenv(key, value)
    return args


def test_there_is_one_file_for_each_case():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_accelerate_reads_every_key(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == KINDS[name]
    # The recipe's `bf16` decides.
    assert config.mixed_precision == "no"
    args = launched(name)
    known = vars(launch_command_parser().parse_args(["tools/train.py"]))
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    nested = [key for keys in values.values() if isinstance(keys, dict) for key in keys]
    # accelerate would set a misspelt key of these sections, and nobody would read it.
    assert set(nested) <= set(known)
    assert args.num_processes == values["num_processes"]
    assert (args.use_fsdp, args.use_deepspeed, args.multi_gpu) == (
        KINDS[name] is DistributedType.FSDP,
        KINDS[name] is DistributedType.DEEPSPEED,
        KINDS[name] is DistributedType.MULTI_GPU,
    )


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind is DistributedType.FSDP])
def test_fsdp_is_the_second_and_wraps_the_backbone_s_own_layers(name, monkeypatch):
    nodes = ("--machine_rank", "1", "--main_process_ip", "node0", "--main_process_port", "29511")
    args = plugin_environment(name, monkeypatch, *(nodes if name == "multi_node" else ()))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.auto_wrap_policy is transformer_auto_wrap_policy
    assert plugin.transformer_cls_names_to_wrap is None
    assert plugin.reshard_after_forward is True
    assert isinstance(plugin.cpu_offload, CPUOffloadPolicy) is (name == "fsdp2_offload")
    assert plugin.state_dict_type is StateDictType.SHARDED_STATE_DICT
    assert plugin.cpu_ram_efficient_loading is True
    # transformers refuses it beside the recipes' gradient_checkpointing.
    assert plugin.activation_checkpointing is False
    if name == "multi_node":
        assert (args.nnodes, args.nproc_per_node, args.node_rank) == ("2", "8", 1)
        assert (args.rdzv_backend, args.rdzv_endpoint) == ("static", "node0:29511")


@pytest.mark.parametrize(("name", "stage"), [("deepspeed_zero2", 2), ("deepspeed_zero3", 3)])
def test_zero_takes_accumulation_and_clipping_from_the_recipe(name, stage, monkeypatch):
    plugin_environment(name, monkeypatch)
    plugin = DeepSpeedPlugin()
    config = plugin.deepspeed_config
    assert config["zero_optimization"]["stage"] == stage
    assert config["gradient_accumulation_steps"] == config["gradient_clipping"] == "auto"
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is (stage == 3)
    assert plugin.zero3_init_flag is False


def fake(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path):
    """SLURM's commands as stand-ins that note their words; `step` says what the training step does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    calls = tmp_path / "calls"
    fake(folder, "scontrol", f'[ "$1" = show ] && echo node0 && echo node1 || echo "scontrol $*" >> {calls}')
    script = f"""
        if [[ "$*" == *pkill* ]]; then echo "stop $*" >> {calls}; kill -USR1 $(cat {tmp_path}/step); exit 0; fi
        shift; export SLURM_NODEID=1
        "$@"
    """
    fake(folder, "srun", script)

    def start(step: str) -> subprocess.Popen[str]:
        fake(folder, "accelerate", f'echo "accelerate $*" >> {calls}\n{step}')
        environment = {
            **os.environ,
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            **{"SLURM_JOB_ID": "1234567", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "8"},
            "SLURM_JOB_NODELIST": "node[0-1]",
        }
        command = ["bash", str(FOLDER / "slurm.sh"), "recipes/sfe.yaml", "--dataset", "my data"]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)

    return start, calls


def test_the_script_is_valid_bash():
    subprocess.run(["bash", "-n", str(FOLDER / "slurm.sh")], check=True)


def test_each_node_starts_its_launcher_and_the_code_comes_through(slurm):
    start, calls = slurm
    process = start("exit 7")
    process.communicate(timeout=30)
    assert process.returncode == 7
    [line] = calls.read_text().splitlines()
    assert line == (
        "accelerate launch --config_file recipes/accelerate/multi_node.yaml --num_machines 2 --num_processes 16 "
        "--machine_rank 1 --main_process_ip node0 --main_process_port 34567 tools/train.py recipes/sfe.yaml "
        "--dataset my data --resume"
    )
    # What the script passes on is a command that accelerate takes.
    args = launched("multi_node", *line.split()[4:14])
    assert (args.num_machines, args.num_processes, args.machine_rank, args.main_process_ip) == (2, 16, 1, "node0")


@pytest.mark.parametrize(("code", "requeued"), [(143, True), (0, False), (7, False)])
def test_a_run_that_was_stopped_goes_back_into_the_queue(slurm, code, requeued):
    start, calls = slurm
    process = start(f"exit {code}")
    process.communicate(timeout=30)
    assert ("scontrol requeue 1234567" in calls.read_text()) is requeued
    assert process.returncode == (0 if requeued else code)


def test_the_signal_before_the_limit_reaches_the_training_processes_and_requeues(slurm, tmp_path):
    start, calls = slurm
    # As a launcher: it says 1, whatever the code of the processes that it started.
    python = (
        "import signal, time; signal.signal(signal.SIGUSR1, lambda *_: exit(1)); print(1, flush=True); time.sleep(60)"
    )
    process = start(f"echo $$ > {tmp_path}/step; echo started >> {calls}; exec {sys.executable} -c '{python}'")
    assert process.stdout.readline() == "1\n"
    process.send_signal(10)  # SIGUSR1
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0, said
    assert "saving a checkpoint" in said and "back into the queue" in said
    lines = calls.read_text().splitlines()
    assert [line for line in lines if line.startswith("stop")] and lines[-1] == "scontrol requeue 1234567"
