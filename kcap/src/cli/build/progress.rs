//! What people see while builds run, on standard error: a live line each on a terminal, a plain
//! line each for what happens elsewhere, nothing where it is not wanted.

use std::{
    collections::VecDeque,
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::log::{Instructions, message};
use crate::{
    cli::LONGEST_LINE,
    interpret::steps::line::without_ansi,
    record::Event,
    render::escape::{head, tail},
};

/// Lines of output that are kept of each build, to be shown where it fails.
const LAST_LINES: usize = 15;
/// Most columns of a Dockerfile's path in front of a line.
const NAME: usize = 40;
/// How often a live line's time moves on.
const TICK: Duration = Duration::from_secs(1);

/// How much is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// What went wrong.
    Errors,
    /// What happens as well.
    Progress,
    /// The builds' output as well.
    Output,
}

/// Shows what happens to builds, by position.
pub struct Progress {
    show: Show,
    screen: Screen,
    builds: Vec<Watched>,
}

enum Screen {
    /// Lines, one after the other.
    Lines(Box<dyn Write>),
    /// A terminal whose last lines are the running builds'.
    Live(MultiProgress),
}

/// A build to show.
pub struct Watched {
    /// The Dockerfile's path.
    name: String,
    instructions: Option<Instructions>,
    bar: Option<ProgressBar>,
    /// What it does.
    doing: String,
    /// Whether that is an instruction.
    instructed: bool,
    checks: u64,
    last: VecDeque<String>,
}

impl Watched {
    /// A build of this Dockerfile.
    pub fn new(name: &str, instructions: Option<Instructions>) -> Self {
        Self {
            name: tail(name, NAME),
            instructions,
            bar: None,
            doing: String::new(),
            instructed: false,
            checks: 0,
            last: VecDeque::new(),
        }
    }

    fn line(&self) -> String {
        format!(
            "{}  {} checks  {}",
            self.name,
            self.checks,
            head(&self.doing, LONGEST_LINE)
        )
    }
}

impl Progress {
    /// On standard error.
    pub fn new(show: Show, builds: Vec<Watched>) -> Self {
        let screen = if show != Show::Errors && io::stderr().is_terminal() {
            Screen::Live(MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
        } else {
            Screen::Lines(Box::new(io::stderr()))
        };
        Self {
            show,
            screen,
            builds,
        }
    }

    /// Shows what happened to a build, but for its end.
    pub fn event(&mut self, job: usize, event: &Event) {
        let Some(build) = self.builds.get_mut(job) else {
            return;
        };
        match event {
            Event::Started => match &self.screen {
                Screen::Live(live) => {
                    let bar = live.add(ProgressBar::new_spinner().with_style(style()));
                    bar.set_message(build.line());
                    bar.enable_steady_tick(TICK);
                    build.bar = Some(bar);
                }
                Screen::Lines(_) => self.tell(job, "started"),
            },
            Event::Log(line) => self.log(job, line),
            Event::Output(line) => {
                if build.last.len() == LAST_LINES {
                    build.last.pop_front();
                }
                let line = head(&without_ansi(line.trim_end()), LONGEST_LINE);
                build.last.push_back(line.clone());
                if self.show == Show::Output {
                    let name = build.name.clone();
                    self.line(&format!("{name} | {line}"));
                }
            }
            Event::Checks(checks) => {
                build.checks = *checks;
                if let Some(bar) = &build.bar {
                    bar.set_message(build.line());
                }
            }
            Event::Note(line) => self.say(line),
            Event::Ended(_) => {}
        }
    }

    /// A line of the executor's log.
    fn log(&mut self, job: usize, line: &str) {
        let build = &mut self.builds[job];
        let message = message(line);
        let announced = (build.instructions.as_mut()).and_then(|all| all.announced(&message));
        match announced {
            Some(instruction) => {
                build.doing = instruction;
                build.instructed = true;
                if matches!(self.screen, Screen::Lines(_)) {
                    let doing = build.doing.clone();
                    self.tell(job, &doing);
                    return;
                }
            }
            // Before the first instruction, what the executor says of itself.
            None if !build.instructed => build.doing = message,
            None => return,
        }
        if let Some(bar) = &build.bar {
            bar.set_message(build.line());
        }
    }

    /// The build ended, as `line` says; where it failed, the last lines of its output follow.
    pub fn ended(&mut self, job: usize, line: &str, failed: bool) {
        let Some(build) = self.builds.get_mut(job) else {
            return;
        };
        if let (Some(bar), Screen::Live(live)) = (build.bar.take(), &self.screen) {
            bar.finish_and_clear();
            live.remove(&bar);
        }
        let last = std::mem::take(&mut build.last);
        let name = build.name.clone();
        if failed {
            self.say(&format!("{name}: {line}"));
            // They were shown.
            if self.show != Show::Output {
                for line in last {
                    self.line(&format!("{name} | {line}"));
                }
            }
        } else {
            self.tell(job, line);
        }
    }

    /// A line about a build, where progress is shown.
    fn tell(&mut self, job: usize, what: &str) {
        if self.show != Show::Errors {
            let line = format!("{}: {what}", self.builds[job].name);
            self.say(&line);
        }
    }

    /// A line about kcap's own work, where progress is shown.
    pub fn note(&mut self, what: &str) {
        if self.show != Show::Errors {
            self.say(what);
        }
    }

    /// A line that is always shown, escaped and bounded.
    pub fn say(&mut self, what: &str) {
        self.line(&format!("kcap: {what}"));
    }

    fn line(&mut self, line: &str) {
        let line = head(&line.replace('\n', " "), LONGEST_LINE);
        // Nothing can be done where standard error is closed.
        let _ = match &mut self.screen {
            Screen::Lines(to) => writeln!(to, "{line}"),
            Screen::Live(live) => live.println(line),
        };
    }
}

fn style() -> ProgressStyle {
    // Bounded by the terminal's width, so that it stays one line.
    ProgressStyle::with_template("{elapsed:>5} {wide_msg}").expect("the template is one")
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use super::*;
    use crate::interpret::dockerfile;

    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is shown of these events, and of the end.
    fn shown(show: Show, events: &[Event], failed: bool) -> String {
        let to = Shared::default();
        let parsed = dockerfile::parse(b"FROM a\nRUN x\n").unwrap();
        let watched = Watched::new("a/Dockerfile", Some(Instructions::of(&parsed)));
        let mut progress = Progress {
            show,
            screen: Screen::Lines(Box::new(to.clone())),
            builds: vec![watched],
        };
        for event in events {
            progress.event(0, event);
        }
        progress.ended(0, if failed { "exit 1" } else { "built" }, failed);
        String::from_utf8(to.0.take()).unwrap()
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Started,
            Event::Log("\u{1b}[36mINFO\u{1b}[0m[0000] Unpacking rootfs".into()),
            Event::Log("\u{1b}[36mINFO\u{1b}[0m[0001] RUN x".into()),
            Event::Output("\u{1b}[1mhello\u{1b}[0m\u{7}\n".into()),
            Event::Checks(12),
        ]
    }

    #[test]
    fn a_line_each_for_what_happens() {
        assert_eq!(
            shown(Show::Progress, &events(), false),
            "kcap: a/Dockerfile: started\nkcap: a/Dockerfile: [2/2] RUN x\n\
             kcap: a/Dockerfile: built\n"
        );
    }

    #[test]
    fn the_last_lines_of_a_build_that_failed() {
        let mut events = events();
        events.extend((0..100).map(|n| Event::Output(format!("line {n}"))));
        for show in [Show::Progress, Show::Errors] {
            let text = shown(show, &events, true);
            let last: Vec<&str> = text.lines().rev().take(LAST_LINES + 1).collect();
            assert_eq!(last[0], "a/Dockerfile | line 99");
            assert_eq!(last[LAST_LINES], "kcap: a/Dockerfile: exit 1", "{text}");
        }
        assert_eq!(shown(Show::Errors, &events, false), "");
    }

    #[test]
    fn output_is_passed_through_once_and_escaped() {
        let text = shown(Show::Output, &events(), true);
        assert_eq!(
            text.matches("a/Dockerfile | hello\\u{7}\n").count(),
            1,
            "{text}"
        );
        assert!(text.ends_with("kcap: a/Dockerfile: exit 1\n"), "{text}");
    }

    #[test]
    fn hostile_output_is_bounded() {
        let events = [
            Event::Started,
            Event::Output("\u{202e}x\u{1b}]0;t\u{7}".repeat(100_000)),
            Event::Log(format!(
                "\u{1b}[36mINFO\u{1b}[0m[0000] RUN {}",
                "\u{9b}".repeat(100_000)
            )),
        ];
        let text = shown(Show::Output, &events, false);
        assert!(text.len() < 5000, "{}", text.len());
        for line in text.lines() {
            assert!(
                !line.chars().any(crate::render::escape::is_unsafe),
                "{line:?}"
            );
        }
    }
}
