//! What people type for a model -> the file or the folder that holds it.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::files::formats::gguf::PartName;

/// Names that a message lists.
const LISTED: usize = 20;
/// Files of a folder that are looked at: one with more is no model's.
const ENTRIES_MAX: usize = 10_000;
/// What the hub's cache calls the folder of a model: this, the owner, two dashes, the name.
const CACHE_PREFIX: &str = "models--";
const WEIGHTS: [&str; 2] = ["model.safetensors", "model.safetensors.index.json"];

/// The GGUF file or model folder that `path` stands for: itself; the one GGUF model in a folder; the snapshot of a folder of
/// the Hugging Face cache; the model of that cache that is called so (`google/gemma-3-1b-it`, with `:Q4_K_M` behind it where
/// it has several GGUF files). `~` is the home folder.
///
/// # Errors
/// A folder holds several models, each named; a name that is neither on this machine nor in the cache, with how to get it.
pub fn locate(path: &Path) -> Result<PathBuf> {
    locate_with(path, &Places::of_environment())
}

/// What the model in a folder is called: as the folder is, or as the model of the Hugging Face cache whose snapshot it is
/// (`gemma-3-1b-it` for `models--google--gemma-3-1b-it/snapshots/REVISION`).
pub fn folder_name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let snapshots = full.parent().filter(|parent| parent.ends_with("snapshots"));
    let cached = snapshots.and_then(|s| s.parent()?.file_name()?.to_str()?.strip_prefix(CACHE_PREFIX));
    match cached {
        Some(folder) => folder.rsplit_once("--").map_or(folder, |(_, name)| name).to_string(),
        None => full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned()),
    }
}

/// Folders that the environment names.
#[derive(Default)]
struct Places {
    home: Option<PathBuf>,
    /// Where the Hugging Face cache is, whether or not it exists.
    cache: Option<PathBuf>,
}

impl Places {
    fn of_environment() -> Places {
        Places::new(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    /// In the order in which `huggingface_hub` looks.
    fn new(variable: impl Fn(&str) -> Option<PathBuf>) -> Places {
        let home = variable("HOME");
        let expanded = |path: PathBuf| expand_home(&path, home.as_deref());
        let hub = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let cache = hub
            .or_else(|| variable("HF_HOME").map(|dir| dir.join("hub")))
            .or_else(|| variable("XDG_CACHE_HOME").map(|dir| dir.join("huggingface/hub")))
            .or_else(|| home.as_ref().map(|dir| dir.join(".cache/huggingface/hub")));
        Places { cache: cache.map(expanded), home }
    }
}

fn locate_with(path: &Path, places: &Places) -> Result<PathBuf> {
    let expanded = match path.exists() {
        true => path.to_path_buf(),
        false => expand_home(path, places.home.as_deref()),
    };
    if expanded.is_dir() {
        return in_folder(&expanded, None);
    }
    // A part of a split file that is not there is named by whoever opens the others.
    match HubName::parse(path).filter(|_| !expanded.exists()) {
        Some(name) => in_cache(path, &name, places),
        None => Ok(expanded),
    }
}

fn expand_home(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_path_buf(),
    }
}

/// A model of the hub: `owner/name`, or the same behind the hub's address; `:tag` chooses one of several GGUF files.
struct HubName {
    owner: String,
    name: String,
    tag: Option<String>,
}

impl HubName {
    /// `None` for what can only be a path.
    fn parse(path: &Path) -> Option<HubName> {
        let text = path.to_str()?;
        let without_scheme = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
        let address = without_scheme.strip_prefix("huggingface.co/").or_else(|| without_scheme.strip_prefix("hf.co/"));
        let mut segments = address.unwrap_or(text).split('/');
        let (owner, last) = (segments.next()?, segments.next()?);
        // An address may go on with the branch that is looked at.
        if address.is_none() && segments.next().is_some() {
            return None;
        }
        let (name, tag) = last.split_once(':').map_or((last, None), |(name, tag)| (name, Some(tag)));
        let is_file = [".gguf", ".safetensors", ".json", ".bin"].iter().any(|end| name.ends_with(end));
        let is_plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let is_name = !is_file && [owner, name].into_iter().chain(tag).all(is_plain);
        is_name.then(|| HubName { owner: owner.into(), name: name.into(), tag: tag.map(str::to_string) })
    }
}

fn in_cache(typed: &Path, name: &HubName, places: &Places) -> Result<PathBuf> {
    let HubName { owner, name, tag } = name;
    let cache = places.cache.as_deref();
    let folder = cache.map(|cache| cache.join(format!("{CACHE_PREFIX}{owner}--{name}"))).filter(|dir| dir.is_dir());
    if let Some(folder) = folder {
        return in_folder(&folder, tag.as_deref());
    }
    let looked = cache.map_or(String::new(), |cache| format!(" ({})", cache.display()));
    Err(Error::input(format!(
        "is no file or folder, and the Hugging Face cache{looked} has no model of that name: \"hf download {owner}/{name}\" \
         gets it from the hub"
    ))
    .in_file(typed))
}

/// The model in a folder; `tag` is part of the name of the GGUF file that is wanted.
fn in_folder(dir: &Path, tag: Option<&str>) -> Result<PathBuf> {
    let dir = &match snapshots_of(dir) {
        Some(snapshots) => snapshot(dir, &snapshots)?,
        None => dir.to_path_buf(),
    };
    let is_model = dir.join("config.json").exists() && WEIGHTS.iter().any(|name| dir.join(name).exists());
    if is_model && tag.is_none() {
        return Ok(dir.clone());
    }
    let all = gguf_models(dir)?;
    let wanted: Vec<&String> = match tag {
        Some(tag) => all.iter().filter(|name| has_tag(name, tag)).collect(),
        None => all.iter().collect(),
    };
    match (&wanted[..], tag) {
        ([one], _) => Ok(dir.join(one)),
        // Whoever opens it says what is missing.
        ([], None) => Ok(dir.clone()),
        ([], Some(tag)) if all.is_empty() => {
            Err(Error::input(format!("holds no GGUF file: \"{tag}\" chooses none")).in_file(dir))
        }
        ([], Some(tag)) => {
            Err(Error::input(format!("no GGUF file here has \"{tag}\" in its name: {}", list(&all))).in_file(dir))
        }
        (several, _) => {
            let lacks = if dir.join("config.json").exists() { "has no model.safetensors and " } else { "" };
            let n = several.len();
            let message = format!("{lacks}holds {n} GGUF models, pass the path of one: {}", list(several));
            Err(Error::input(message).in_file(dir))
        }
    }
}

/// The folder of snapshots, when `dir` is that of a model in the hub's cache or that folder itself.
fn snapshots_of(dir: &Path) -> Option<PathBuf> {
    let is_called =
        |dir: &Path, what: &dyn Fn(&str) -> bool| dir.file_name().and_then(|name| name.to_str()).is_some_and(what);
    let inside = dir.join("snapshots");
    if inside.is_dir() && !dir.join("config.json").exists() {
        return Some(inside);
    }
    let is_itself = is_called(dir, &|name| name == "snapshots")
        && dir.parent().is_some_and(|parent| is_called(parent, &|name| name.starts_with(CACHE_PREFIX)));
    is_itself.then(|| dir.to_path_buf())
}

/// The snapshot that `refs/main` names, or the only one.
fn snapshot(dir: &Path, snapshots: &Path) -> Result<PathBuf> {
    let revision = std::fs::read(snapshots.with_file_name("refs").join("main")).unwrap_or_default();
    let revision = String::from_utf8_lossy(revision.trim_ascii()).into_owned();
    let is_plain = !revision.is_empty() && revision.bytes().all(|b| b.is_ascii_alphanumeric());
    let main = snapshots.join(&revision);
    if is_plain && main.is_dir() {
        return Ok(main);
    }
    let names = entries(snapshots)?.into_iter().filter(|name| snapshots.join(name).is_dir()).collect::<Vec<_>>();
    match &names[..] {
        [one] => Ok(snapshots.join(one)),
        [] => Err(Error::input("has no snapshot: the download is incomplete (hf download)").in_file(dir)),
        several => Err(Error::input(format!(
            "holds {} snapshots and no refs/main, pass the folder of one: {}",
            several.len(),
            list(several)
        ))
        .in_file(dir)),
    }
}

/// Names of the GGUF models in a folder, sorted: one of a split file stands for its parts, and projectors of images and
/// importance matrices are none.
fn gguf_models(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut seen: Vec<(String, usize)> = Vec::new();
    for name in entries(dir)? {
        let lower = name.to_lowercase();
        if !lower.ends_with(".gguf")
            || lower.contains("mmproj")
            || lower.contains("imatrix")
            || !dir.join(&name).is_file()
        {
            continue;
        }
        if let Some(part) = PartName::parse(&name).filter(|part| part.count > 1) {
            let split = (part.stem.to_string(), part.count);
            if seen.contains(&split) {
                continue;
            }
            seen.push(split);
        }
        names.push(name);
    }
    Ok(names)
}

/// Names in a folder that are UTF-8, sorted.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let io = |e: std::io::Error| Error::io(dir, &e);
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)?.take(ENTRIES_MAX) {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// `Q4_K_M` is in `gemma-3-1b-it-Q4_K_M.gguf` but not in `..-Q4_K_MX.gguf`, in any case of letters.
fn has_tag(name: &str, tag: &str) -> bool {
    let (name, tag) = (name.to_lowercase(), tag.to_lowercase());
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    name.match_indices(&tag)
        .any(|(at, _)| !name[..at].ends_with(is_word) && !name[at + tag.len()..].starts_with(is_word))
}

fn list(names: &[impl AsRef<str>]) -> String {
    let shown: Vec<&str> = names.iter().take(LISTED).map(AsRef::as_ref).collect();
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests;
