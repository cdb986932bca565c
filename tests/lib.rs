//! Helpers shared by the integration tests: where fixtures live and how numbers are compared.
