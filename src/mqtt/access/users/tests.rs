//! The users' file as it is read, asked and written.

use super::cheap_line as cheap;
use super::*;

fn users(lines: &[String]) -> Users {
    Users::parse(Path::new("users"), &lines.join("\n")).unwrap()
}

#[test]
fn a_right_password_is_found_right_and_remembered_and_no_other() {
    let users = users(&[cheap("truck", "secret"), cheap("train", "other")]);
    assert_eq!(users.remembers("truck", b"secret"), None, "nothing is known before it was computed");
    assert!(users.verify("truck", b"secret"));
    assert_eq!(users.remembers("truck", b"secret"), Some(()));
    for (user, password) in [("truck", "other"), ("train", "secret"), ("nobody", "secret"), ("truck", ""), ("", "")] {
        assert!(!users.verify(user, password.as_bytes()), "{user} {password}");
        assert_eq!(users.remembers(user, password.as_bytes()), None, "{user} {password}");
    }
    assert_eq!(users.remembers("truck", b"secret"), Some(()), "a wrong password does not push the right one out");
}

#[test]
fn where_a_name_ends_and_a_password_begins_matters() {
    let users = users(&[cheap("ab", "cd")]);
    assert_ne!(users.digest("ab", b"cd"), users.digest("abc", b"d"));
    assert_ne!(
        users.digest("ab", b"cd"),
        self::users(&[cheap("ab", "cd")]).digest("ab", b"cd"),
        "each has its own key"
    );
}

#[test]
fn lines_that_are_none_are_refused_with_file_line_and_way_out() {
    let good = cheap("a", "x");
    for (text, said) in [
        (format!("{good}\nnothing"), "users:2: not `NAME:HASH`"),
        (format!("# x\n\n{good}\n{good}"), "users:4: the user `a` stands here a second time"),
        ("a:plain".into(), "users:1: the hash of `a` is no argon2 hash"),
        ("a:$argon2id$v=19$m=8,t=1,p=1".into(), "is no argon2 hash"),
        ("a:$scrypt$ln=1,r=1,p=1$YWJjZGVmZ2g$YWJjZGVmZ2hhYmNk".into(), "is no argon2 hash"),
        (good.replace("m=8,", "m=99999999,"), "asks for more than m=262144"),
        (format!(":{good}"), "a user's name has 1 to 256 bytes"),
    ] {
        let error = Users::parse(Path::new("users"), &text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}\n{error}");
    }
    assert_eq!(users(&["# nobody yet".into()]).len(), 0);
    assert!(!users(&[]).verify("a", b"x"), "without users nobody is one");
}

#[test]
fn a_user_is_added_changed_and_taken_out_and_everything_else_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("users");
    assert!(set(&path, "truck", b"one").unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let with_comment = format!("# our fleet\n{}", std::fs::read_to_string(&path).unwrap());
    std::fs::write(&path, with_comment).unwrap();
    assert!(set(&path, "train", b"two").unwrap());
    assert!(!set(&path, "truck", b"three").unwrap(), "it was there");
    let users = Users::read(&path).unwrap();
    assert!(users.verify("truck", b"three") && users.verify("train", b"two") && !users.verify("truck", b"one"));
    assert!(delete(&path, "truck").unwrap() && !delete(&path, "truck").unwrap());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# our fleet\ntrain:$argon2id$"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_file_that_is_no_users_file_or_cannot_be_written_stays_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes");
    std::fs::write(&path, "dear diary\n").unwrap();
    assert!(set(&path, "truck", b"x").unwrap_err().to_string().contains("notes:1: not `NAME:HASH`"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "dear diary\n");
    let error = delete(&folder.path().join("none"), "truck").unwrap_err().to_string();
    assert!(error.contains("none: the users' file cannot be read") && error.contains("dashlight passwd"), "{error}");
    let error = set(&folder.path().join("no/such/users"), "truck", b"x").unwrap_err().to_string();
    assert!(error.contains("its directory cannot be opened"), "{error}");
    for name in ["", "a:b", "#a", " a", "a\nb", &"x".repeat(300)] {
        assert!(set(&path, name, b"x").is_err(), "{name:?}");
    }
    assert!(set(&path, "a", b"").unwrap_err().to_string().contains("empty"));
}

#[test]
fn a_link_stays_one_and_a_group_that_could_read_still_can() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("users"), folder.path().join("link"));
    set(&path, "a", b"x").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    set(&link, "b", b"y").unwrap();
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(Users::read(&path).unwrap().len(), 2);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "others no longer");
}
