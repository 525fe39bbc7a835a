//! What `ds4 pull` will fetch, from where, and who it will say it is.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    fault::Fault,
    flags::Args,
    pull::{self, Entry, Remote, Token},
};

const HUB: &str = "https://huggingface.co";
const FOLDER: &str = "gguf";
/// A token has some forty letters.
const MAX_TOKEN_BYTES: u64 = 4096;

/// What to do.
#[derive(Debug, PartialEq)]
pub enum Pull {
    List,
    Fetch { entry: &'static Entry, remote: Remote, folder: PathBuf },
}

impl Pull {
    /// Plans what the arguments ask for.
    pub fn of(args: &Args) -> Result<Pull, Fault> {
        Pull::with(args, &|name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn with(args: &Args, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Pull, Fault> {
        let typed = &args.pull;
        let name = args.operand.as_ref().map(|name| name.to_string_lossy());
        let name = match (typed.list, name) {
            (true, None) => return Ok(Pull::List),
            (true, Some(name)) => {
                return Err(Fault::usage(format!("--list: lists everything, not `{name}`")));
            }
            (false, None) => {
                return Err(Fault::usage(
                    "pull: needs a NAME, as in `ds4 pull flash`; --list lists them",
                ));
            }
            (false, Some(name)) => name,
        };
        let entry = Entry::find(&name).ok_or_else(|| {
            Fault::usage(format!(
                "{name}: nothing of this name is published; there are {}",
                pull::names()
            ))
        })?;
        let folder = typed.folder.clone().or_else(|| env("DS4_GGUF_DIR").map(PathBuf::from));
        let remote = remote(args, env)?;
        Ok(Pull::Fetch { entry, remote, folder: folder.unwrap_or_else(|| FOLDER.into()) })
    }
}

/// The server, with the token that is meant for it: one that is typed is for the server that is asked;
/// one that lies around is for the hub that the environment names, and for no mirror that is typed.
fn remote(args: &Args, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Remote, Fault> {
    let typed = &args.pull;
    let text = |name| env(name).map(|value| value.to_string_lossy().into_owned());
    let (flag, base) = match &typed.base_url {
        Some(base) => ("--base-url", base.clone()),
        None => ("HF_ENDPOINT", text("HF_ENDPOINT").unwrap_or_else(|| HUB.into())),
    };
    let at =
        |token| Remote::new(&base, token).map_err(|why| Fault::usage(format!("{flag}: {why}")));
    let can_be_told = at(None)?.keeps_secrets();
    if let Some(token) = &typed.token {
        let token = Token::new(token)
            .ok_or_else(|| Fault::usage("--token: this is no token, it has to be one word"))?;
        if !can_be_told {
            return Err(Fault::usage(format!(
                "--token: not over an unencrypted connection to {base}"
            )));
        }
        return at(Some(token));
    }
    if typed.base_url.is_some() || !can_be_told {
        return at(None);
    }
    let token = text("HF_TOKEN").or_else(|| token_file(env));
    at(token.and_then(|token| Token::new(&token)))
}

/// The token that Hugging Face's own tools have left.
fn token_file(env: &dyn Fn(&str) -> Option<OsString>) -> Option<String> {
    let home = env("HF_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&env("HOME")?).join(".cache/huggingface")))?;
    let path = home.join("token");
    let is_small = fs::metadata(&path).ok()?.len() <= MAX_TOKEN_BYTES;
    is_small.then(|| fs::read_to_string(&path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ds4 pull flash`, with what `change` adds.
    fn typed(change: impl FnOnce(&mut Args)) -> Args {
        let mut args = Args { operand: Some("flash".into()), ..Args::default() };
        change(&mut args);
        args
    }

    fn with(base_url: Option<&str>, token: Option<&str>) -> Args {
        typed(|args| {
            args.pull.base_url = base_url.map(str::to_owned);
            args.pull.token = token.map(str::to_owned);
        })
    }

    fn planned(args: &Args, env: &[(&str, &str)]) -> Result<(Remote, PathBuf), String> {
        let env = |name: &str| {
            env.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        match Pull::with(args, &env) {
            Ok(Pull::Fetch { entry, remote, folder }) => {
                assert_eq!(entry.name, "ds4f-q2");
                Ok((remote, folder))
            }
            Err(Fault::Usage(why)) => Err(why),
            other => panic!("{other:?}"),
        }
    }

    fn remote_is(args: &Args, env: &[(&str, &str)], base: &str, token: &str) {
        let expected = Remote::new(base, Token::new(token)).unwrap();
        assert_eq!(planned(args, env).unwrap().0, expected);
    }

    #[test]
    fn tokens_go_where_they_are_meant_to_go() {
        let env = [("HF_TOKEN", "ambient")];
        let mirror = "https://mirror.example";
        remote_is(&with(None, None), &[], HUB, "");
        remote_is(&with(None, None), &env, HUB, "ambient");
        remote_is(&with(None, Some("typed")), &env, HUB, "typed");
        remote_is(&with(Some(mirror), None), &env, mirror, "");
        remote_is(&with(Some(mirror), Some("typed")), &env, mirror, "typed");
        let endpoint = [env[0], ("HF_ENDPOINT", mirror)];
        remote_is(&with(None, None), &endpoint, mirror, "ambient");
        let open = [env[0], ("HF_ENDPOINT", "http://mirror.example")];
        remote_is(&with(None, None), &open, "http://mirror.example", "");
    }

    #[test]
    fn the_token_of_other_tools_is_found() {
        let home = env::temp_dir().join(format!("ds4-token-{}", std::process::id()));
        fs::create_dir_all(home.join(".cache/huggingface")).unwrap();
        fs::write(home.join(".cache/huggingface/token"), "from_file\n").unwrap();
        let shown = home.display().to_string();
        remote_is(&with(None, None), &[("HOME", &shown)], HUB, "from_file");
        let both = [("HOME", shown.as_str()), ("HF_TOKEN", "from_env")];
        remote_is(&with(None, None), &both, HUB, "from_env");
        remote_is(&with(None, None), &[("HF_HOME", &shown)], HUB, "");
        fs::remove_dir_all(home).unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |args: Args, part: &str| {
            let why = planned(&args, &[]).unwrap_err();
            assert!(why.contains(part), "{part:?}: {why}");
        };
        refused(with(Some("mirror"), None), "--base-url: `mirror` is no address");
        refused(with(None, Some("two words")), "--token: this is no token");
        refused(with(Some("http://mirror.example"), Some("x")), "--token: not over an unencrypted");
        refused(typed(|args| args.operand = None), "pull: needs a NAME");
        refused(typed(|args| args.operand = Some("glm53-q2".into())), "nothing of this name");
        refused(typed(|args| args.pull.list = true), "--list: lists everything");
    }

    #[test]
    fn the_folder_is_typed_or_known_or_usual() {
        let env = [("DS4_GGUF_DIR", "/models")];
        assert_eq!(planned(&typed(|_| ()), &[]).unwrap().1, Path::new("gguf"));
        assert_eq!(planned(&typed(|_| ()), &env).unwrap().1, Path::new("/models"));
        let here = typed(|args| args.pull.folder = Some("here".into()));
        assert_eq!(planned(&here, &env).unwrap().1, Path::new("here"));
    }
}
