//! Heat and power decide when a step runs, never what it computes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lichen_tests::sim_disk::SimDisk;
use lichen_trainer::job::{Ending, Job, PreparedJob};

use crate::library::{finish, job, open, trained, Done, Watch, RUN};
use crate::support::{checkpoints, command, flags, wait_at_most, Run, TempDir, Trained, MODELS};

const N_STEPS: u64 = 9;

/// Files of a board with one thermal zone and an input rail, below a root of their own.
struct Board {
    root: PathBuf,
}

impl Board {
    fn new(folder: &TempDir) -> Board {
        let board = Board { root: folder.path("root") };
        board.write("sys/class/thermal/thermal_zone0/type", "CPU-therm");
        board.write("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/rail_name_0", "POM_5V_IN");
        board.set_celsius(40);
        board.set_watts(2);
        board
    }

    /// A reader sees the old number or the new one.
    fn write(&self, name: &str, contents: &str) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        let new = path.with_extension("new");
        fs::write(&new, format!("{contents}\n")).expect("written");
        fs::rename(&new, &path).expect("renamed");
    }

    fn set_celsius(&self, celsius: u32) {
        self.write("sys/class/thermal/thermal_zone0/temp", &format!("{}", celsius * 1000));
    }

    fn set_watts(&self, watts: u32) {
        self.write("sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input", &format!("{}", watts * 1000));
    }
}

/// Runs on this board; `on_event` hears of steps and notes.
fn run(
    opened: &mut PreparedJob,
    disk: &SimDisk,
    board: &Board,
    stop_at: Option<u64>,
    on_event: &mut dyn FnMut(u64, Option<&str>),
) -> Done {
    let mut watch = Watch { notes: Vec::new(), rows: Vec::new(), stop_at, on_event };
    let outcome = opened.run(disk.shared(), &board.root, &mut watch);
    Done { outcome, notes: watch.notes, rows: watch.rows }
}

#[test]
fn a_hot_board_pauses_and_ends_as_a_cool_one() {
    for model in MODELS {
        let folder = TempDir::new(&format!("heat-{model}"));
        let board = Board::new(&folder);
        let mut opened = open(Job { max_board_temp_c: Some(60.0), save_every: None, ..job(model, N_STEPS) });
        // A board that is not hot: what both are compared with.
        let cool = SimDisk::new();
        run(&mut opened, &cool, &board, None, &mut |_, _| {}).outcome.unwrap_or_else(|e| panic!("{e}"));
        let want = trained(&cool, N_STEPS);
        let disk = SimDisk::new();
        let mut saved_while_hot = Vec::new();
        // Hot after the fifth step; 50 C is below where it stops and above where it goes on.
        let done = run(&mut opened, &disk, &board, None, &mut |step, note| match note {
            None if step == 5 => board.set_celsius(61),
            Some(text) => {
                assert_eq!((step, text), (5, "61 C: paused until the board is cooler"), "{model}");
                board.set_celsius(39);
                saved_while_hot.push(disk.tree(RUN).contains_key("/step-00000005/MANIFEST"));
            }
            None => {}
        });
        done.outcome.unwrap_or_else(|e| panic!("{e}"));
        // It says so, saves, and waits.
        assert_eq!((saved_while_hot, done.notes.len()), (vec![false], 1), "{model}");
        let rested = done.rows[5].seconds;
        assert!((1.9..10.0).contains(&rested), "{model}: {rested} s");
        trained(&disk, N_STEPS).assert_equals(&want, model);
        assert!(disk.tree(RUN).contains_key("/step-00000005/MANIFEST"), "{model}: it was saved before it paused");
        let heat: Vec<Option<f32>> = done.rows.iter().map(|r| r.temperature_c).collect();
        assert_eq!((heat[3], heat[5]), (Some(40.0), Some(39.0)), "{model}");
    }
}

/// Stays hot, is asked to stop: it does so at once.
#[test]
fn a_pause_can_be_interrupted() {
    let folder = TempDir::new("hot");
    let board = Board::new(&folder);
    board.set_celsius(90);
    let mut opened = open(Job { max_board_temp_c: Some(60.0), ..job(MODELS[1], N_STEPS) });
    let disk = SimDisk::new();
    let began = Instant::now();
    let done = run(&mut opened, &disk, &board, Some(0), &mut |_, _| {});
    let outcome = done.outcome.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((outcome.ending, outcome.step), (Ending::Stopped, 0));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    board.set_celsius(30);
    let after = run(&mut opened, &disk, &board, None, &mut |_, _| {}).outcome.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(after.resumed, Some(0));
    trained(&disk, N_STEPS).assert_equals(&finish(&mut open(job(MODELS[1], N_STEPS)), &SimDisk::new()), "after heat");
}

#[test]
fn a_power_budget_makes_it_rest() {
    let folder = TempDir::new("power");
    let board = Board::new(&folder);
    let mut opened = open(Job { power_budget_mw: Some(5000), ..job(MODELS[1], N_STEPS) });
    let disk = SimDisk::new();
    // Too much from the start, also at rest, until that is said.
    board.set_watts(6);
    let done = run(&mut opened, &disk, &board, None, &mut |_, note| {
        if note.is_some() {
            board.set_watts(1);
        }
    });
    done.outcome.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(done.notes, ["power_budget cannot be kept: the board draws 6000 mW at rest"]);
    // What was overdrawn in the first step, a few millijoules, is paid back before the second.
    let (first, second) = (&done.rows[0], &done.rows[1]);
    assert!(second.seconds > 0.05 && second.seconds > first.seconds, "{first:?} {second:?}");
    assert_eq!((first.power_mw, second.power_mw), (Some(6000), Some(1000)));
    trained(&disk, N_STEPS).assert_equals(&finish(&mut open(job(MODELS[1], N_STEPS)), &SimDisk::new()), "after rests");
}

/// The program on the same board, by its environment.
#[test]
fn the_program_pauses_for_a_hot_board() {
    let folder = TempDir::new("hot-program");
    let board = Board::new(&folder);
    let (out, whole) = (folder.path("run"), folder.path("whole"));
    crate::support::run(&flags(MODELS[0], &whole, 40)).ok();
    let mut command = command(&flags(MODELS[0], &out, 40));
    command.args(["--max-board-temp-c", "80"]).env("LICHEN_SYS_ROOT", &board.root);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    wait_for(|| checkpoints(&out).last().is_some_and(|step| *step >= 3), "a checkpoint");
    board.set_celsius(85);
    // In the pause nothing moves.
    wait_for(|| n_rows(&out) > 0 && is_still(&out), "a pause");
    let paused_at = n_rows(&out);
    assert!(
        paused_at < 40 && checkpoints(&out).contains(&(paused_at as u64)),
        "row {paused_at}: {:?}",
        checkpoints(&out)
    );
    board.set_celsius(55);
    assert!(wait_at_most(&mut child, Duration::from_secs(60)), "it does not go on");
    let ended = Run::from(child.wait_with_output().expect("our child")).ok();
    assert!(ended.stderr.contains("85 C: paused until the board is cooler"), "{ended:?}");
    Trained::read(&out, 40).assert_equals(&Trained::read(&whole, 40), "after heat");
}

fn n_rows(out: &Path) -> usize {
    fs::read(out.join("metrics.jsonl")).map_or(0, |b| b.iter().filter(|b| **b == b'\n').count())
}

/// No row in a second, and there are more to come.
fn is_still(out: &Path) -> bool {
    let before = n_rows(out);
    std::thread::sleep(Duration::from_secs(1));
    n_rows(out) == before
}

fn wait_for(mut is_there: impl FnMut() -> bool, what: &str) {
    let began = Instant::now();
    while !is_there() {
        assert!(began.elapsed() < Duration::from_secs(60), "no {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn boards_without_sensors_say_so() {
    let folder = TempDir::new("no-sensors");
    for (flag, value, said) in [
        ("--max-board-temp-c", "80", "--max-board-temp-c: this machine reports no temperature; leave it out"),
        ("--power-budget", "5W", "--power-budget: this machine reports no input power; leave it out"),
    ] {
        let mut command = command(&flags(MODELS[1], &folder.path("run"), 3));
        let ended: Run =
            command.args([flag, value]).env("LICHEN_SYS_ROOT", "/nowhere").output().expect("it starts").into();
        assert_eq!((ended.code, ended.error()), (Some(2), said));
    }
    // Limits of the board's own file are held, or not held, alike.
    let board = folder.file("board.toml");
    for (limit, said) in [
        ("max_board_temp_c = 80", "this machine reports no temperature"),
        ("power_budget_mw = 5000", "this machine reports no input power"),
    ] {
        fs::write(&board, format!("[train]\n{limit}\n")).expect("written");
        let mut command = command(&flags(MODELS[1], &folder.path("run"), 3));
        command.args(["--device-config", &board]).env("LICHEN_SYS_ROOT", "/nowhere");
        let ended: Run = command.output().expect("it starts").into();
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.error().contains(said), "{ended:?}");
    }
}
