//! Settings of training that its messages name; those that inference has too are the runtime's ([`lichen_runtime::setting`]).

use lichen_runtime::setting::Setting;

/// An adapter that training goes on with.
pub const INIT_ADAPTER: Setting = Setting::new("init_adapter");
