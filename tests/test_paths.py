from vico_eval import paths


def test_a_checkout_uses_the_folders_at_its_top(tmp_path):
    package = tmp_path / "vico_eval"
    package.mkdir()
    assert paths.data_dir(package) == tmp_path


def test_a_wheel_uses_its_own_copies(tmp_path):
    packed = tmp_path / "vico_eval" / "_data"
    packed.mkdir(parents=True)
    assert paths.data_dir(tmp_path / "vico_eval") == packed


def test_the_installed_package_finds_its_data():
    assert (paths.models_dir() / "checkpoints.yaml").is_file()
    assert paths.tasks_dir().name == "tasks"
    assert paths.results_dir().name == "results"
