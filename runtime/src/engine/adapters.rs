//! Adapters by name: which there are, and how they come and go at run time.

use std::sync::Arc;

use super::{AdapterPath, Engine, NamedAdapter};
use crate::engine::request::AdapterChoice;
use crate::error::{Error, Result};
use crate::files::adapter_file::AdapterFile;
use crate::loader::{check_base, AdapterSize};
use crate::model::adapter::Adapter;
use crate::setting::ADAPTER;
use crate::suggest;

/// Those that are loaded. The first of an engine's options is the default.
pub(super) struct Adapters {
    loaded: Vec<NamedAdapter>,
    default: Option<String>,
}

impl Adapters {
    pub fn new(loaded: Vec<NamedAdapter>) -> Adapters {
        Adapters { default: loaded.first().map(|a| a.name.clone()), loaded }
    }

    /// The adapter that a request chose; `None` for the model alone.
    ///
    /// # Errors
    /// None has that name.
    pub fn find(&self, choice: &AdapterChoice) -> Result<Option<Arc<Adapter>>> {
        let name = match choice {
            AdapterChoice::Base => return Ok(None),
            AdapterChoice::Default => match &self.default {
                None => return Ok(None),
                Some(name) => name,
            },
            AdapterChoice::Named(name) => name,
        };
        match self.loaded.iter().find(|a| a.name == *name) {
            Some(found) => Ok(Some(found.adapter.clone())),
            None => {
                let names = self.loaded.iter().map(|a| a.name.as_str());
                Err(Error::input(format!("{ADAPTER} \"{name}\" is not loaded{}", suggest::hint(names, name))))
            }
        }
    }
}

impl Engine {
    /// Adapters that requests can name.
    pub fn adapters(&self) -> &[NamedAdapter] {
        &self.adapters.loaded
    }

    /// The adapter that a conversation or a request chose, after the engine's defaults.
    pub(super) fn find_adapter(&self, choice: &AdapterChoice) -> Result<Option<Arc<Adapter>>> {
        match choice {
            AdapterChoice::Default => self.adapters.find(&self.defaults.adapter),
            other => self.adapters.find(other),
        }
    }

    /// Loads an adapter under a name, within the memory plan; one of that name is replaced for the requests that come.
    ///
    /// # Errors
    /// The file is missing, malformed or another model's, or it does not fit beside the others; what was loaded stays.
    pub fn load_adapter(&mut self, name: &str, file: &AdapterPath) -> Result<Arc<Adapter>> {
        let opened = AdapterFile::open(&file.path, &self.model.model.config)?;
        if let Some(source) = &self.model.source {
            if let Some(note) = check_base(&opened, &file.path, source, self.model.tokenizer.as_ref())? {
                log::info!("{note}");
            }
        }
        let size = AdapterSize {
            bytes: opened.size_bytes(),
            tables_bytes: opened.tables.size_bytes(),
            rank: opened.max_rank(),
            is_allocated: false,
        };
        self.check_fits(name, size)?;
        let adapter = Adapter::new(opened, &self.model.model.config, file.scale, &self.model.device)?;
        let adapter = Arc::new(adapter);
        self.put_adapter(name, adapter.clone())?;
        Ok(adapter)
    }

    /// The same for one that is in memory.
    ///
    /// # Errors
    /// It is another model's, or it does not fit the budget.
    pub fn add_adapter(&mut self, name: &str, adapter: Arc<Adapter>) -> Result<()> {
        if !adapter.fits(&self.model.model.config) {
            return Err(Error::input(format!("{ADAPTER} \"{name}\" was made for a model of another shape")));
        }
        let size = AdapterSize {
            bytes: adapter.size_bytes(),
            tables_bytes: adapter.tables_bytes(),
            rank: adapter.max_rank(),
            is_allocated: true,
        };
        self.check_fits(name, size)?;
        self.put_adapter(name, adapter)
    }

    fn check_fits(&self, name: &str, size: AdapterSize) -> Result<()> {
        self.model.check_adapter(self.bytes_beside(name), size, self.limits.max_rank)
    }

    fn put_adapter(&mut self, name: &str, adapter: Arc<Adapter>) -> Result<()> {
        let rank = adapter.max_rank().max(self.limits.max_rank);
        self.compute.reserve_rank(rank)?;
        self.limits.max_rank = rank;
        self.adapters.loaded.retain(|a| a.name != name);
        self.adapters.loaded.push(NamedAdapter { name: name.to_string(), adapter });
        Ok(())
    }

    /// Bytes of the adapters that stay when one of this name is loaded: those the model was opened with lie there as long as
    /// it does.
    fn bytes_beside(&self, name: &str) -> usize {
        let opened = &self.model.adapters;
        let is_opened = |a: &NamedAdapter| opened.iter().any(|o| Arc::ptr_eq(&o.adapter, &a.adapter));
        let others = self.adapters.loaded.iter().filter(|a| a.name != name && !is_opened(a));
        others.chain(opened).map(|a| a.adapter.size_bytes()).sum()
    }

    /// Forgets an adapter; false when there is none of this name. Requests that it already answers go on with it; where it
    /// was the default, requests that name none are refused until one of its name is loaded again.
    pub fn unload_adapter(&mut self, name: &str) -> bool {
        let n = self.adapters.loaded.len();
        self.adapters.loaded.retain(|a| a.name != name);
        n > self.adapters.loaded.len()
    }
}
