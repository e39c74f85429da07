//! stub
pub mod events;
pub mod masking;
