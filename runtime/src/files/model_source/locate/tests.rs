use std::fs;

use super::*;

/// A folder of its own, removed with everything in it.
struct Home(PathBuf);

impl Home {
    fn new(name: &str) -> Home {
        let path = env::temp_dir().join(format!("lichen-locate-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("temporary folder");
        Home(path)
    }

    /// Makes empty files, with their folders.
    fn files(&self, names: &[&str]) {
        for name in names {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().expect("inside")).expect("temporary folder");
            fs::write(path, "").expect("temporary file");
        }
    }

    /// The path that is found, from here; or the message with HOME for this folder.
    fn locate(&self, typed: &str) -> std::result::Result<String, String> {
        let typed = typed.replace("HOME", &self.0.display().to_string());
        let places = Places { home: Some(self.0.clone()), cache: Some(self.0.join("hub")) };
        let shown = |path: &str| path.replace(&self.0.display().to_string(), "HOME");
        match locate_with(Path::new(&typed), &places) {
            Ok(path) => Ok(shown(&path.display().to_string())),
            Err(error) => Err(shown(&error.to_string())),
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn folders() {
    let home = Home::new("folders");
    home.files(&[
        "one/m-Q8_0.gguf",
        "one/mmproj-m-f16.gguf",
        "one/README.md",
        "split/m-00001-of-00002.gguf",
        "split/m-00002-of-00002.gguf",
        "several/a.gguf",
        "several/b.GGUF",
        "several/c-00001-of-00002.gguf",
        "several/c-00002-of-00002.gguf",
        "both/config.json",
        "both/model.safetensors",
        "both/m.gguf",
        "config-alone/config.json",
        "config-alone/m.gguf",
        "nothing/README.md",
    ]);
    let several = "HOME/several: holds 3 GGUF models, pass the path of one: a.gguf, b.GGUF, c-00001-of-00002.gguf";
    for (typed, want) in [
        ("HOME/one", Ok("HOME/one/m-Q8_0.gguf")),
        ("HOME/one/", Ok("HOME/one/m-Q8_0.gguf")),
        ("~/one", Ok("HOME/one/m-Q8_0.gguf")),
        ("~/one/m-Q8_0.gguf", Ok("HOME/one/m-Q8_0.gguf")),
        ("HOME/split", Ok("HOME/split/m-00001-of-00002.gguf")),
        ("HOME/several", Err(several)),
        ("HOME/both", Ok("HOME/both")),
        // The config.json of a repository of GGUF files.
        ("HOME/config-alone", Ok("HOME/config-alone/m.gguf")),
        ("HOME/nothing", Ok("HOME/nothing")),
        // Whoever opens it says that it is not there.
        ("HOME/missing.gguf", Ok("HOME/missing.gguf")),
        ("models/missing.gguf", Ok("models/missing.gguf")),
    ] {
        assert_eq!(home.locate(typed), want.map(str::to_string).map_err(str::to_string), "{typed}");
    }
}

#[test]
fn the_hubs_cache() {
    let home = Home::new("cache");
    home.files(&[
        "hub/models--google--gemma-3-1b-it/snapshots/abc/config.json",
        "hub/models--google--gemma-3-1b-it/snapshots/abc/model.safetensors",
        "hub/models--google--gemma-3-1b-it/snapshots/old/config.json",
        "hub/models--a--quants/snapshots/1/m-Q4_K_M.gguf",
        "hub/models--a--quants/snapshots/1/m-Q4_K_S.gguf",
        "hub/models--a--quants/snapshots/1/m-Q8_0.gguf",
        "hub/models--a--two/snapshots/1/m.gguf",
        "hub/models--a--two/snapshots/2/m.gguf",
        "hub/models--a--escape/snapshots/1/m.gguf",
    ]);
    fs::create_dir_all(home.0.join("hub/models--a--empty/snapshots")).expect("temporary folder");
    for (model, revision) in [("google--gemma-3-1b-it", "abc\n"), ("a--escape", "../../..")] {
        let refs = home.0.join(format!("hub/models--{model}/refs"));
        fs::create_dir_all(&refs).expect("temporary folder");
        fs::write(refs.join("main"), revision).expect("temporary file");
    }
    let gemma = Ok("HOME/hub/models--google--gemma-3-1b-it/snapshots/abc");
    let quants = "HOME/hub/models--a--quants/snapshots/1";
    let names = "m-Q4_K_M.gguf, m-Q4_K_S.gguf, m-Q8_0.gguf";
    let (several, none) = (
        format!("{quants}: holds 3 GGUF models, pass the path of one: {names}"),
        format!("{quants}: no GGUF file here has \"Q4_K\" in its name: {names}"),
    );
    let q4_k_m = format!("{quants}/m-Q4_K_M.gguf");
    for (typed, want) in [
        ("google/gemma-3-1b-it", gemma),
        ("https://huggingface.co/google/gemma-3-1b-it", gemma),
        ("https://huggingface.co/google/gemma-3-1b-it/tree/main", gemma),
        ("hf.co/google/gemma-3-1b-it", gemma),
        ("HOME/hub/models--google--gemma-3-1b-it", gemma),
        ("HOME/hub/models--google--gemma-3-1b-it/snapshots", gemma),
        ("HOME/hub/models--google--gemma-3-1b-it/snapshots/abc", gemma),
        ("a/quants", Err(several.as_str())),
        ("a/quants:q4_k_m", Ok(q4_k_m.as_str())),
        ("a/quants:Q4_K", Err(none.as_str())),
        ("a/two", Err("HOME/hub/models--a--two: holds 2 snapshots and no refs/main, pass the folder of one: 1, 2")),
        // What refs/main names must be a folder beside the others.
        ("a/escape", Ok("HOME/hub/models--a--escape/snapshots/1/m.gguf")),
        ("a/empty", Err("HOME/hub/models--a--empty: has no snapshot: the download is incomplete (hf download)")),
        (
            "google/gemma-3-4b-it",
            Err("google/gemma-3-4b-it: is no file or folder, and the Hugging Face cache (HOME/hub) has no model of that \
                 name: \"hf download google/gemma-3-4b-it\" gets it from the hub"),
        ),
    ] {
        assert_eq!(home.locate(typed), want.map(str::to_string).map_err(str::to_string), "{typed}");
    }
}

#[test]
fn names_of_the_hub() {
    for (typed, want) in [
        ("google/gemma-3-1b-it", Some(("google", "gemma-3-1b-it", None))),
        ("a/b:Q4_K_M", Some(("a", "b", Some("Q4_K_M")))),
        ("hf.co/a/b:Q8_0", Some(("a", "b", Some("Q8_0")))),
        ("http://huggingface.co/a/b/blob/main/b.gguf", Some(("a", "b", None))),
        ("gemma-3-1b-it", None),
        ("a/b/c", None),
        ("./a/b", None),
        ("../b", None),
        ("/a/b", None),
        ("a/..", None),
        ("a/", None),
        ("a/b.gguf", None),
        ("a b/c", None),
        ("a/b:", None),
    ] {
        let got = HubName::parse(Path::new(typed));
        let got = got.as_ref().map(|n| (n.owner.as_str(), n.name.as_str(), n.tag.as_deref()));
        assert_eq!(got, want, "{typed}");
    }
}

/// huggingface_hub's order.
#[test]
fn where_the_cache_is() {
    type Variables = &'static [(&'static str, &'static str)];
    let cases: [(Variables, Option<&str>); 7] = [
        (&[("HOME", "/h")], Some("/h/.cache/huggingface/hub")),
        (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], Some("/x/huggingface/hub")),
        (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")], Some("/f/hub")),
        (&[("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], Some("/c")),
        (&[("HF_HOME", "/f"), ("HUGGINGFACE_HUB_CACHE", "/old")], Some("/old")),
        (&[("HOME", "/h"), ("HF_HOME", "~/f")], Some("/h/f/hub")),
        (&[], None),
    ];
    for (variables, want) in cases {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value));
        assert_eq!(Places::new(value).cache, want.map(PathBuf::from), "{variables:?}");
    }
}

#[test]
fn tags_are_whole_words() {
    for (name, tag, want) in [
        ("gemma-3-1b-it-Q4_K_M.gguf", "q4_k_m", true),
        ("gemma-3-1b-it-Q4_K_M.gguf", "Q4_K", false),
        ("gemma-3-1b-it.Q8_0.gguf", "Q8_0", true),
        ("gemma-3-1b-it-IQ4_XS.gguf", "Q4_XS", false),
        ("m-Q8_0-00001-of-00002.gguf", "Q8_0", true),
    ] {
        assert_eq!(has_tag(name, tag), want, "{name} {tag}");
    }
}

#[test]
fn a_snapshot_is_called_as_its_model() {
    assert_eq!(folder_name(Path::new("/x/models--google--gemma-3-1b-it/snapshots/0a1b")), "gemma-3-1b-it");
    assert_eq!(folder_name(Path::new("/x/gemma")), "gemma");
    assert_eq!(folder_name(Path::new("/x/snapshots/gemma")), "gemma");
}
