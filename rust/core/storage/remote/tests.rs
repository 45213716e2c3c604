//! The storage over a store in memory.

use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::LazyLock;
use std::thread;

use object_store::memory::InMemory;
use object_store::{PutMode, PutPayload};
use proptest::prelude::*;

use super::*;
use crate::error::{Error, ErrorKind};

const ROOT: &str = "s3://b";

/// Returns a storage over an empty store in memory, and the store.
fn remote() -> (Remote, Arc<InMemory>) {
    let store = Arc::new(InMemory::new());
    (Remote::over(ROOT, store.clone()), store)
}

/// Returns the content of an object as the storage reads it.
fn read(remote: &Remote, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    remote.open(Path::new(path)).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Writes an object by pieces.
fn write(remote: &Remote, path: &str, content: &[u8], piece: usize) {
    let mut file = remote.create(Path::new(path)).unwrap();
    for piece in content.chunks(piece.max(1)) {
        file.write_all(piece).unwrap();
    }
    file.sync().unwrap();
    file.publish().unwrap();
}

/// Returns bytes that repeat nowhere near.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u8).collect()
}

/// A step of a reader.
#[derive(Debug, Clone)]
enum Step {
    Read(usize),
    Start(u64),
    End(i64),
    Current(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_usize..3_000_000).prop_map(Step::Read),
        4 => (0_usize..3_000).prop_map(Step::Read),
        1 => (0_u64..13_000_000).prop_map(Step::Start),
        1 => (-9_000_000_i64..100).prop_map(Step::End),
        1 => (-100_000_i64..100_000).prop_map(Step::Current),
    ]
}

/// The object that readers step through, larger than all that is held of it.
static LARGE: LazyLock<(Remote, Vec<u8>)> = LazyLock::new(|| {
    let (remote, _) = remote();
    let content = bytes((11 << 20) + 17);
    write(&remote, "s3://b/large", &content, 1 << 20);
    (remote, content)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_steps_of_a_reader_give_what_a_slice_gives(steps in prop::collection::vec(step(), 1..24)) {
        let (remote, content) = &*LARGE;
        let mut file = remote.open(Path::new("s3://b/large")).unwrap();
        let mut expected = std::io::Cursor::new(content);
        for step in steps {
            let position = match step {
                Step::Read(len) => {
                    let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
                    let len = expected.read(&mut theirs).unwrap();
                    file.read_exact(&mut ours[..len]).unwrap();
                    prop_assert!(ours == theirs);
                    if len == 0 && !theirs.is_empty() {
                        prop_assert_eq!(file.read(&mut ours).unwrap(), 0);
                    }
                    continue;
                }
                Step::Start(position) => SeekFrom::Start(position),
                Step::End(step) => SeekFrom::End(step),
                Step::Current(step) => SeekFrom::Current(step),
            };
            match (file.seek(position), expected.seek(position)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (ours, theirs) => prop_assert_eq!(ours.is_err(), theirs.is_err()),
            }
        }
    }
}

#[test]
fn objects_of_every_size_come_back_as_they_were_written() {
    let (remote, store) = remote();
    let part = 8 << 20;
    for len in [0, 1, 1000, part - 1, part, part + 1, 3 * part, 4 * part + 5] {
        let content = bytes(len);
        write(&remote, "s3://b/f/object", &content, 700_001);
        assert!(read(&remote, "s3://b/f/object") == content, "{len}");
        let metadata = remote.metadata(Path::new("s3://b/f/object")).unwrap();
        assert_eq!((metadata.kind, metadata.size), (FileKind::Regular, len as u64));
    }
    // Neither what is dropped nor what is not published yet is there.
    for len in [3, 2 * part] {
        let mut file = remote.create(Path::new("s3://b/g/dropped")).unwrap();
        file.write_all(&bytes(len)).unwrap();
        assert!(wait(async { Ok(store.head(&Key::from("g/dropped")).await) }).unwrap().is_err());
        drop(file);
        assert_eq!(
            remote.metadata(Path::new("s3://b/g")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}

#[test]
fn folders_are_there_as_long_as_an_object_lies_below_them() {
    let (remote, _) = remote();
    let storage: &dyn Storage = &remote;
    for name in ["a/b/c.txt", "a/b/d e?.txt", "a/ọ̀rọ̀#1%20.txt", "ab.txt"] {
        write(&remote, &format!("s3://b/{name}"), name.as_bytes(), 99);
        assert_eq!(read(&remote, &format!("s3://b/{name}")), name.as_bytes());
    }
    let names = |folder: &str| storage.names_in(Path::new(folder));
    assert_eq!(names("s3://b"), ["a", "ab.txt"]);
    assert_eq!(names("s3://b/a/"), ["b", "ọ̀rọ̀#1%20.txt"]);
    assert_eq!(names("s3://b/a/x/../b"), ["c.txt", "d e?.txt"]);
    assert!(storage.list(Path::new("s3://b/none")).is_err());
    let kind = |path: &str| remote.metadata(Path::new(path)).map(|found| found.kind);
    assert_eq!(kind("s3://b/a/b").unwrap(), FileKind::Folder);
    assert_eq!(kind("s3://b").unwrap(), FileKind::Folder);
    // The beginning of a name is no folder.
    assert_eq!(kind("s3://b/a/b/c").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(
        remote.open(Path::new("s3://b/a")).err().unwrap().kind(),
        io::ErrorKind::IsADirectory
    );
    // A rename that meets files there adds to them: so one that was stopped goes on.
    write(&remote, "s3://b/to/kept", b"kept", 9);
    storage.rename(Path::new("s3://b/a"), Path::new("s3://b/to/x")).unwrap();
    assert_eq!(names("s3://b/to/x/b"), ["c.txt", "d e?.txt"]);
    assert_eq!(names("s3://b/to"), ["kept", "x"]);
    assert!(!storage.exists(Path::new("s3://b/a")));
    storage.rename(Path::new("s3://b/to/kept"), Path::new("s3://b/moved")).unwrap();
    assert_eq!(read(&remote, "s3://b/moved"), b"kept");
    assert!(storage.rename(Path::new("s3://b/none"), Path::new("s3://b/some")).is_err());
    storage.remove_all(Path::new("s3://b/to")).unwrap();
    assert_eq!(names("s3://b"), ["ab.txt", "moved"]);
}

#[test]
fn a_change_between_two_reads_is_an_error() {
    let (remote, _) = remote();
    let content = bytes(1 << 20);
    write(&remote, "s3://b/a", &content, 1 << 20);
    let mut file = remote.open(Path::new("s3://b/a")).unwrap();
    file.read_exact(&mut [0; 1000]).unwrap();
    write(&remote, "s3://b/a", &content, 1 << 20);
    let error = file.read_to_end(&mut Vec::new()).unwrap_err();
    let error = Error::io(ErrorKind::Input, Path::new("s3://b/a"), &error);
    assert!(error.message.contains("was changed while it was read"), "{error}");
}

#[test]
fn one_run_holds_a_lock_and_a_lock_that_was_left_is_taken_over() {
    let (mut first, store) = remote();
    let path = Path::new("s3://b/out/.work/lock");
    first.terms = Terms { renewed: Duration::from_millis(100), left: Duration::from_secs(2) };
    let mut second = Remote::over(ROOT, store.clone());
    second.terms = first.terms;
    let lock = first.lock(path).unwrap().unwrap();
    let error = second.lock(path).unwrap_err();
    let error = Error::io(ErrorKind::Output, path, &error);
    assert!(error.message.contains("another sabiprep"), "{error}");
    assert!(error.remedy.unwrap().contains("counts as left in 1 s"));
    // It stays held for longer than a lock that is not renewed.
    thread::sleep(Duration::from_millis(2500));
    assert!(second.lock(path).is_err());
    write(&first, "s3://b/out/a", b"a", 1);
    drop(lock);
    assert!(second.names_for_test("s3://b/out/.work").is_empty());

    // Another run writes the lock anew, as one that took it over does.
    let lock = first.lock(path).unwrap().unwrap();
    let key = Key::from("out/.work/lock");
    wait(async {
        Ok(store.put_opts(&key, PutPayload::from("x"), PutMode::Overwrite.into()).await)
    })
    .unwrap()
    .unwrap();
    thread::sleep(Duration::from_millis(400));
    let mut file = first.create(Path::new("s3://b/out/c"));
    let refused = match &mut file {
        Ok(_) => panic!("a run that lost its lock writes"),
        Err(error) => error.to_string(),
    };
    assert!(refused.contains("could not be renewed"), "{refused}");
    // Its lock is not ours to remove.
    drop(lock);
    assert_eq!(second.names_for_test("s3://b/out/.work"), ["lock"]);
    assert!(second.lock(path).is_err());
    thread::sleep(Duration::from_millis(2100));
    let lock = second.lock(path).unwrap().unwrap();
    write(&second, "s3://b/out/d", b"d", 1);
    drop(lock);
}

impl Remote {
    /// Returns the names in a folder.
    fn names_for_test(&self, folder: &str) -> Vec<String> {
        let storage: &dyn Storage = self;
        storage.names_in(Path::new(folder))
    }
}
