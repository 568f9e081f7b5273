"""The shell function that makes brings in Java, Maven and nginx: what it does as root, and what it says elsewhere."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "install_servers.sh"
SHELL = shutil.which("sh") or "/bin/sh"


@pytest.fixture
def machine(tmp_path):
    """Returns a function that runs the script on a machine with nothing but the given programs."""

    def run(*names: str, **programs: str) -> subprocess.CompletedProcess[str]:
        for program, text in programs.items():
            path = tmp_path / program.replace("_", "-")
            path.write_text(f"#!{SHELL}\n{text}\n")
            path.chmod(0o755)
        command = [SHELL, str(SCRIPT), *names]
        return subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=10)

    return run


def test_what_is_present_is_left_alone(machine):
    done = machine("java", java="", mvn="", apt_get="exit 9", id="echo 0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_root_it_says_what_is_missing_and_leaves_it_to_the_caller(machine):
    done = machine("java", id="echo 1000", apt_get="exit 9")
    assert done.returncode == 0
    assert done.stdout == "not installed, and only root with apt-get could install it here: default-jre-headless maven\n"


def test_as_root_it_installs_what_is_missing(machine, tmp_path):
    made = f"{tmp_path}/java {tmp_path}/mvn"
    apt = f'touch {made}; chmod 755 {made}; echo "$*" >> {tmp_path}/calls'
    for program in ("touch", "chmod"):
        (tmp_path / program).symlink_to(shutil.which(program) or f"/bin/{program}")
    done = machine("java", id="echo 0", apt_get=apt)
    assert (done.returncode, done.stdout) == (0, "installing: default-jre-headless maven\n"), done.stderr
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update -qq",
        "install -y -qq --no-install-recommends default-jre-headless maven",
    ]


def test_an_installation_that_brings_nothing_is_an_error(machine):
    done = machine("java", id="echo 0", apt_get="true")
    assert done.returncode == 1
    assert "`java` is still missing after its installation" in done.stderr


def test_an_unknown_name_is_an_error(machine):
    done = machine("php", id="echo 0")
    assert done.returncode == 2
    assert "unknown name `php`: it must be java or nginx" in done.stderr


def test_the_programs_of_this_machine_do_not_reach_the_test(machine):
    assert "mvn" not in os.listdir(SCRIPT.parent)
    assert machine("java", id="echo 1000").stdout.startswith("not installed")
