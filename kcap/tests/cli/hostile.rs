//! Files that are too large, too deep, cut, of another version, or no files: refused with one line, in
//! bounded memory and time, whatever they unpack to.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use flate2::{Compress, Compression, FlushCompress};

use crate::check::corpus;
use crate::harness::Place;

/// Most memory in KiB that a refused file may take.
const MEMORY: i64 = 300 << 10;
/// Most seconds of processors' time that refusing one may take, not optimized: on a busy machine, time on
/// the clock says nothing.
const SECONDS: u64 = 20;
/// Where memory goes beyond all bounds, the test ends and not the machine.
const ADDRESSES: u64 = 4 << 30;

/// What is written to standard input, over and over, until kcap does not read on.
pub struct Endless {
    first: Vec<u8>,
    then: Vec<u8>,
}

/// Runs kcap on something that it has to refuse as bad input; the line that it says.
#[track_caller]
fn refused(place: &Place, subcommand: &str, args: &[&str], endless: Option<Endless>) -> String {
    let mut command = place.subcommand(subcommand, args);
    command.stdout(Stdio::null());
    if endless.is_some() {
        command.stdin(Stdio::piped());
    }
    let (status, line, memory, seconds) = bounded(command, endless);
    assert_eq!(status, 2, "{args:?}: {line:?}");
    assert!(
        line.starts_with("kcap: ") && line.ends_with('\n'),
        "{line:?}"
    );
    let line = line.trim_end_matches('\n').to_owned();
    assert!(!line.contains(char::is_control), "one line: {line:?}");
    assert!(memory < MEMORY, "{args:?} takes {memory} KiB: {line}");
    assert!(seconds < SECONDS, "{args:?} takes {seconds} s: {line}");
    line
}

/// Exit status, standard error, most memory in KiB, and seconds of processors' time.
///
/// What `wait4` says of memory is that of this process too, which was the child's before it executed
/// kcap: so the child's own high-water mark is looked at as long as it runs.
pub fn bounded(mut command: Command, endless: Option<Endless>) -> (i32, String, i64, u64) {
    let limit = libc::rlimit {
        rlim_cur: ADDRESSES,
        rlim_max: ADDRESSES,
    };
    // SAFETY: between fork and exec, only a system call is made, with a value of the closure's own.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    let mut child = command.spawn().expect("kcap starts");
    let writer = child.stdin.take().zip(endless).map(|(mut to, text)| {
        thread::spawn(move || {
            // It ends with a broken pipe.
            let mut result = to.write_all(&text.first);
            while result.is_ok() {
                result = to.write_all(&text.then);
            }
        })
    });
    let mut stderr = child.stderr.take().expect("it is piped");
    let reader = thread::spawn(move || {
        let mut told = String::new();
        stderr.read_to_string(&mut told).expect("it is text");
        told
    });
    let (mut most, mut seconds) = (0, 0);
    let status = loop {
        most = peak(child.id()).unwrap_or(0).max(most);
        seconds = time(child.id()).unwrap_or(0).max(seconds);
        if let Some(status) = child.try_wait().expect("it is ours") {
            break status;
        }
        thread::sleep(Duration::from_millis(1));
    };
    let told = reader.join().expect("it is text");
    if let Some(writer) = writer {
        writer.join().expect("it ends with the pipe");
    }
    (status.code().unwrap_or(-1), told, most, seconds)
}

/// Most memory in KiB that a running process has held since it executed its program.
fn peak(pid: u32) -> Option<i64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Seconds of processors' time that a running process has had.
fn time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may hold anything. Ticks are hundredths of a second for every process to see.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100)
}

/// gzip of `first` and then `then` so often that there are at least `bytes` of it, without compressing
/// each. It ends without a checksum: nobody is to come so far.
fn bomb(first: &[u8], then: &[u8], bytes: usize) -> Vec<u8> {
    let mut to = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    to.extend(flushed(first));
    let block: Vec<u8> = then.repeat((1 << 20) / then.len());
    let packed = flushed(&block);
    for _ in 0..bytes.div_ceil(block.len()) {
        to.extend_from_slice(&packed);
    }
    to
}

/// Compressed, up to the end of a byte, and independent of what is before.
fn flushed(text: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    let mut to = Vec::with_capacity(text.len() + 1024);
    compress
        .compress_vec(text, &mut to, FlushCompress::Full)
        .expect("there is room");
    assert_eq!(compress.total_in(), text.len() as u64);
    to
}

/// The first line of a real capture.
fn header() -> String {
    let packed = File::open(corpus("chown-run")).expect("the corpus is there");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .expect("it is a capture");
    text.lines().next().expect("a header").to_owned() + "\n"
}

#[test]
fn captures_that_unpack_to_gigabytes_are_refused() {
    const BYTES: usize = 4 << 30;
    let place = Place::new();
    let header = header();
    let log = format!("{{\"log\":{{\"text\":\"{}\"}}}}\n", "x".repeat(2000));
    let frames = format!(
        "{{\"evidence\":{{\"path\":[{}{{}}]}}}}\n",
        "{},".repeat(10_000)
    );
    for (name, first, then) in [
        ("one line", "", "\0"),
        ("one line after the header", &header, "x"),
        (
            "lines of later versions",
            &header,
            "{\"later\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}\n",
        ),
        ("lines of a log", &header, &log),
        ("call paths", &header, &frames),
    ] {
        let bomb = bomb(first.as_bytes(), then.as_bytes(), BYTES);
        assert!(bomb.len() < BYTES / 90, "{name}: {}", bomb.len());
        fs::write(place.path("bomb.kcap"), bomb).expect("it is ours");
        let line = refused(&place, "report", &["bomb.kcap"], None);
        let what = ["too large", "not a kcap capture"];
        assert!(
            what.iter().any(|part| line.contains(part)),
            "{name}: {line}"
        );
    }
}

#[test]
fn reports_of_gigabytes_are_refused() {
    let place = Place::new();
    for first in [
        "{",
        "{\"schema\":\"kcap.report/v1\",\"notes\":[\"",
        "[",
        " ",
    ] {
        let file = File::create(place.path("big.json")).expect("it is ours");
        (&file).write_all(first.as_bytes()).expect("it is ours");
        // It takes no room.
        file.set_len(2 << 30).expect("it is sparse");
        let line = refused(&place, "report", &["big.json"], None);
        assert!(line.contains("big.json"), "{line}");
    }
    // Through a pipe, whose length nobody knows.
    let start = "{\"schema\":\"kcap.report/v1\",\"notes\":[\"";
    for (first, then, part) in [
        (start, "x", "larger than 256 MiB"),
        (start, "\",\"", "larger than 256 MiB"),
        ("", "\n", "larger than 256 MiB"),
        ("{\"a\":", "[", "larger than 256 MiB"),
        ("", "[", "neither a capture nor a report"),
        ("", "\0", "neither a capture nor a report"),
    ] {
        let endless = Endless {
            first: first.into(),
            then: then.repeat((1 << 20) / then.len()).into(),
        };
        let line = refused(&place, "report", &["-"], Some(endless));
        assert!(line.contains(part), "{first}{then}: {line}");
    }
}

#[test]
fn what_is_deep_or_dense_is_refused_within_the_limit_too() {
    const BYTES: usize = 16 << 20;
    let place = Place::new();
    let start = "{\"schema\":\"kcap.report/v1\",\"notes\":[\"";
    for (start, then, part) in [
        ("{\"a\":", "[", "EOF while parsing"),
        ("{\"a\":", "{\"a\":", "EOF while parsing"),
        (
            "{\"schema\":\"kcap.report/v1\",\"tool\":",
            "[",
            "malformed report",
        ),
        // Three bytes each, and in memory eight times as much.
        (start, "\",\"", "more than 4194304 values"),
    ] {
        let text = start.to_owned() + &then.repeat(BYTES / then.len());
        fs::write(place.path("dense.json"), text).expect("it is ours");
        for args in [&["dense.json"][..], &["dense.json", "dense.json"]] {
            let line = refused(&place, "report", args, None);
            assert!(line.contains(part), "{start}{then}: {line}");
        }
        let line = refused(
            &place,
            "check",
            &["--baseline", "dense.json", "dense.json"],
            None,
        );
        assert!(line.contains(part), "{start}{then}: {line}");
    }
}

#[test]
fn policies_are_bounded() {
    let place = Place::new();
    let capture = corpus("chown-run");
    let big = File::create(place.path("big")).expect("it is ours");
    big.set_len(2 << 30).expect("it is sparse");
    // Each line is ten of the one before: a thousand million at the end.
    let mut laughs = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (name, last) in ('b'..='i').zip('a'..) {
        let ten = vec![format!("*{last}"); 10].join(",");
        laughs += &format!("{name}: &{name} [{ten}]\n");
    }
    for (name, text) in [
        ("deep", "[".repeat(1 << 20)),
        ("deeper", "- ".repeat(1 << 19)),
        ("dense", format!("[{}0]", "0,".repeat(2 << 20))),
        ("laughs", laughs),
    ] {
        fs::write(place.path(name), text).expect("it is ours");
    }
    for name in ["big", "deep", "deeper", "dense", "laughs", "/dev/zero"] {
        let line = refused(&place, "check", &["--policy", name, &capture], None);
        assert!(line.contains(name), "{line}");
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let place = Place::new();
    for device in ["/dev/zero", "/dev/urandom", "/dev/null"] {
        let line = refused(&place, "report", &[device], None);
        assert!(line.contains(device), "{line}");
    }
    // In a folder, pipes and links are left alone: nobody may ever write to them.
    fs::create_dir(place.path("folder")).expect("it is ours");
    let pipe = std::ffi::CString::new(
        place
            .path("folder/pipe.json")
            .into_os_string()
            .into_encoded_bytes(),
    );
    // SAFETY: a path that ends with NUL.
    let made = unsafe { libc::mkfifo(pipe.expect("no NUL").as_ptr(), 0o600) };
    assert_eq!(made, 0);
    std::os::unix::fs::symlink("/dev/zero", place.path("folder/zero.json")).expect("it is ours");
    let line = refused(&place, "report", &["folder"], None);
    assert!(line.contains("no report in folder"), "{line}");
}

#[test]
fn other_versions_are_refused_with_what_to_do() {
    let place = Place::new();
    let json = |schema: &str| format!("{{\"schema\":\"{schema}\",\"required\":\"all\"}}");
    for schema in ["kcap.report/v2", "kcap.report/v10", "kcap.matrix/v2"] {
        fs::write(place.path("later.json"), json(schema)).expect("it is ours");
        for args in [&["later.json"][..], &["later.json", "later.json"]] {
            let line = refused(&place, "report", args, None);
            for part in ["later.json", schema, "use the kcap that made it"] {
                assert!(line.contains(part), "{part}: {line}");
            }
        }
    }
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    packed
        .write_all((json("kcap.capture/v2") + "\n").as_bytes())
        .expect("there is memory");
    let packed = packed.finish().expect("there is memory");
    fs::write(place.path("later.kcap"), packed).expect("it is ours");
    let line = refused(&place, "report", &["later.kcap"], None);
    for part in ["later.kcap", "kcap.capture/v2", "use the kcap that made it"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[test]
fn what_is_cut_is_refused_wherever_it_is_cut() {
    let place = Place::new();
    let whole = fs::read(corpus("scratch-copy")).expect("the corpus is there");
    for part in [1, 2, 10, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(place.path("cut.kcap"), &whole[..part]).expect("it is ours");
        let line = refused(&place, "report", &["cut.kcap"], None);
        assert!(line.contains("cut.kcap"), "{part}: {line}");
    }
}
