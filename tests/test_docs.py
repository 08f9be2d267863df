import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_reference_of_strategies_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "document_strategies"), "check=true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
