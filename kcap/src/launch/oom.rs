//! Whether the kernel killed something in a control group for want of memory.
//!
//! Counters of the group are gone with the group, which the runtime removes at the container's end.
//! The kernel's log names the group of each victim, under versions 1 and 2 alike.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

/// Most records that are looked at.
const RECORDS: usize = 100_000;

/// The kernel's log from a moment on.
#[derive(Debug)]
pub struct Log {
    file: File,
    kills: Option<u64>,
}

impl Log {
    /// Notes where the log ends now; `None` where it cannot be read.
    pub fn now() -> Option<Self> {
        let kills = kills();
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .ok()?;
        file.seek(SeekFrom::End(0)).ok()?;
        Some(Self { file, kills })
    }

    /// Something in the group of this path, or below it, has been killed since.
    pub fn names(&self, cgroup: &str) -> bool {
        self.any(|group| is_within(group, cgroup))
    }

    /// Something in a group whose path has this id of a container in it has been killed since.
    pub fn names_container(&self, id: &str) -> bool {
        !id.is_empty() && self.any(|group| group.contains(id))
    }

    fn any(&self, wanted: impl Fn(&str) -> bool) -> bool {
        // The usual case, without a look at the log.
        if self.kills.is_some() && kills() == self.kills {
            return false;
        }
        let mut record = [0; 8192];
        for _ in 0..RECORDS {
            match (&self.file).read(&mut record) {
                Ok(0) => return false,
                Ok(size) => {
                    if victims(&String::from_utf8_lossy(&record[..size])).any(&wanted) {
                        return true;
                    }
                }
                // Overwritten before it was read: the next is.
                Err(e) if e.raw_os_error() == Some(libc::EPIPE) => {}
                Err(e) if e.raw_os_error() == Some(libc::EINTR) => {}
                Err(_) => return false,
            }
        }
        false
    }
}

/// Processes killed on this host since it was booted.
fn kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill "))?
        .parse()
        .ok()
}

/// The groups of which a record says that a process was killed. A path is that from the hierarchy's
/// root, which a container of kcap's own can be far from.
fn victims(record: &str) -> impl Iterator<Item = &str> {
    let rest = record.split_once("oom-kill:").map_or("", |(_, rest)| rest);
    (rest.split(',')).filter_map(|field| field.strip_prefix("task_memcg="))
}

fn is_within(group: &str, cgroup: &str) -> bool {
    group.ends_with(cgroup) || group.contains(&format!("{cgroup}/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_names_its_group() {
        let record = "6,812,1,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,\
                      mems_allowed=0,oom_memcg=/kcap-oci-7-1,task_memcg=/kcap-oci-7-1,\
                      task=executor,pid=9,uid=0\n";
        let groups = |record: &str| victims(record).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(groups(record), ["/kcap-oci-7-1"]);
        assert_eq!(
            groups("6,1,1,-;a program wrote task_memcg=/kcap-oci-7-1"),
            [""; 0]
        );
        // A limit further up, and a victim that is another's.
        let others = record.replace("task_memcg=/kcap-oci-7-1", "task_memcg=/other");
        assert_eq!(groups(&others), ["/other"]);
    }

    #[test]
    fn a_group_is_in_another_by_whole_names() {
        let within = |group: &str| is_within(group, "/kcap-oci-7-1");
        assert!(within("/kcap-oci-7-1") && within("/pod/kcap-oci-7-1"));
        assert!(within("/kcap-oci-7-1/a") && !within("/kcap-oci-7-10"));
        assert!(!within("/kcap-oci-7"));
    }
}
