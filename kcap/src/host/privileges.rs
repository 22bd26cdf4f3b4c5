//! The capabilities of this thread, and giving up those that are not needed any more.

use std::io;

/// `struct __user_cap_header_struct` of version 3.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

const VERSION: u32 = 0x2008_0522;

/// Effective, permitted and inheritable set, in halves of 32 bits.
fn sets() -> io::Result<[u32; 6]> {
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    let mut data = [0u32; 6];
    // SAFETY: version 3 takes a header and two structs of three words.
    match unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) } {
        0 => Ok(data),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What this thread may do, as a mask.
///
/// # Errors
/// The system's.
pub fn effective() -> io::Result<u64> {
    let [low, _, _, high, ..] = sets()?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Gives up all but these, for this thread and those that it starts from now on: nothing that they
/// execute gets them back, either.
///
/// # Errors
/// The system's.
pub fn limit(keep: u64) -> io::Result<()> {
    let mut data = sets()?;
    // While SETPCAP is held, without which the bounding set stays what it is.
    for cap in 0..64u64 {
        // SAFETY: integers only; a number beyond the last is refused.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) };
        if held == 1 && keep >> cap & 1 == 0 {
            // SAFETY: integers only. Without SETPCAP it is refused, and `no_new_privs` does instead.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) };
        }
    }
    // SAFETY: integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Those that a service without root was given; refused where the kernel has none.
    // SAFETY: integers only.
    unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    let (low, high) = (keep as u32, (keep >> 32) as u32);
    let masks = [low, low, 0, high, high, 0];
    for (word, mask) in data.iter_mut().zip(masks) {
        *word &= mask;
    }
    let header = Header {
        version: VERSION,
        pid: 0,
    };
    // SAFETY: as in `sets`.
    match unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_up_is_gone_for_the_thread_and_its_children() {
        let before = effective().unwrap();
        let keep = before & 0b101;
        std::thread::spawn(move || {
            limit(keep).unwrap();
            assert_eq!(effective().unwrap(), keep);
            std::thread::spawn(move || assert_eq!(effective().unwrap(), keep))
                .join()
                .unwrap();
            // It is no error to ask again.
            limit(keep).unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(effective().unwrap(), before, "others keep theirs");
    }
}
