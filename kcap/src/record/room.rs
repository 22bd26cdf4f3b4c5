//! Memory that sessions have: each no more than so much, and all together no more than so much. A part of
//! all is shared out evenly, so that each has something whatever the others take; of the rest whoever comes
//! first takes what it needs, but the more, the less is left.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Beyond its own share a session may have as much as this part of what is left for all.
const PART: usize = 8;

/// What sessions share.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Most bytes that one may have.
    each: usize,
    /// Bytes that each may have, whatever the others do.
    own: usize,
    /// Bytes that are left for all.
    left: Arc<AtomicUsize>,
}

impl Pool {
    /// One of `all` bytes for so many sessions at once, each of which may have `each` at most.
    pub fn new(all: usize, sessions: usize, each: usize) -> Self {
        let own = all / 2 / sessions.max(1);
        Self {
            each,
            own,
            left: Arc::new(AtomicUsize::new(all - own * sessions)),
        }
    }

    /// One without bounds.
    pub fn endless() -> Self {
        Self::new(usize::MAX, 1, usize::MAX)
    }

    /// A session's, which has nothing yet.
    pub fn room(&self) -> Room {
        Room {
            pool: self.clone(),
            taken: 0,
        }
    }
}

/// A session's memory. Dropped, others can have it.
#[derive(Debug)]
pub struct Room {
    pool: Pool,
    taken: usize,
}

impl Room {
    /// That of a session which shares with nobody, of so many bytes at most.
    pub fn of(bytes: usize) -> Self {
        Pool::new(usize::MAX, 1, bytes).room()
    }

    /// Takes so many bytes; false where it may not.
    pub fn take(&mut self, bytes: usize) -> bool {
        let Pool { each, own, left } = &self.pool;
        let Some(taken) = self.taken.checked_add(bytes).filter(|taken| taken <= each) else {
            return false;
        };
        let (shared, before) = (taken.saturating_sub(*own), self.taken.saturating_sub(*own));
        if shared > before {
            let had = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(shared - before)
                    .filter(|left| shared <= left / PART)
            });
            if had.is_err() {
                return false;
            }
        }
        self.taken = taken;
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let shared = self.taken.saturating_sub(self.pool.own);
        self.pool.left.fetch_add(shared, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MB: usize = 1 << 20;

    #[test]
    fn none_has_more_than_one_may() {
        let mut room = Room::of(10);
        assert!(room.take(10) && !room.take(1) && room.take(0));
        assert!(!Room::of(0).take(1));
        assert!(!Room::of(10).take(usize::MAX));
        assert!(Pool::endless().room().take(usize::MAX / 32));
    }

    #[test]
    fn whatever_others_take_each_has_its_share() {
        let pool = Pool::new(2048 * MB, 1024, 64 * MB);
        let mut rooms: Vec<Room> = vec![];
        for _ in 0..1024 {
            let mut room = pool.room();
            while room.take(640) {}
            rooms.push(room);
        }
        let had: Vec<usize> = rooms.iter().map(|room| room.taken).collect();
        assert!(had[0] > 63 * MB, "{}", had[0]);
        assert!(had.iter().all(|had| *had > MB - 640), "{had:?}");
        assert!(had.iter().sum::<usize>() <= 2048 * MB);
        // One that is over makes room.
        let next = rooms.pop();
        rooms[0] = pool.room();
        drop(next);
        let mut room = pool.room();
        while room.take(640) {}
        assert!(room.taken > 7 * MB, "{}", room.taken);
    }

    proptest! {
        #[test]
        fn what_is_taken_comes_back(
            wants in proptest::collection::vec((0usize..6, 0usize..5000), 0..60),
            each in 0usize..20_000,
            all in 0usize..80_000,
        ) {
            let pool = Pool::new(all, 6, each);
            let shared = pool.left.load(Ordering::Relaxed);
            let mut rooms: Vec<Room> = (0..6).map(|_| pool.room()).collect();
            for (at, bytes) in wants {
                let before = rooms[at].taken;
                let took = rooms[at].take(bytes);
                prop_assert_eq!(rooms[at].taken, before + if took { bytes } else { 0 });
                prop_assert!(rooms[at].taken <= each);
                prop_assert!(took || before + bytes > each.min(pool.own), "it has its share");
                prop_assert!(rooms.iter().map(|room| room.taken).sum::<usize>() <= all);
            }
            drop(rooms);
            prop_assert_eq!(pool.left.load(Ordering::Relaxed), shared);
        }
    }
}
