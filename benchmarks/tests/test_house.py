"""What is counted as long."""

from pathlib import Path

import pyrovae
from benchmarks.house import Size, main, measure

TEXT = '''"""A module."""


class Long:
    """A class."""

    def method(self, one, *rest, two=2, **more):
        """A docstring does not count."""
        one = 1

        return one

    @classmethod
    def bare(cls):
        """Nothing but words."""
'''


def test_sizes_of_a_package_that_is_known(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text("one = 1\n")
    (tmp_path / "module.py").write_text(TEXT)
    house = measure(tmp_path)
    assert house.files == [Size("module.py", 15)]
    assert house.classes == [Size("module.py:Long", 12)]
    assert house.functions == [Size("module.py:method", 3, 4), Size("module.py:bare", 0, 0)]


def test_what_is_long_is_named(tmp_path, capsys):
    (tmp_path / "module.py").write_text("def long():\n" + "    one = 1\n" * 31)
    main([str(tmp_path)])
    assert "module.py:long 31" in capsys.readouterr().out


def test_nothing_in_this_library_is_long():
    found = measure(Path(pyrovae.__file__).parent).long()
    assert not any(found.values()), found
