//! The Actions language and the step engine.
//!
//! [`yaml`] and [`workflow`] read what a user wrote and turn a job into a [`common::plan::Plan`];
//! [`expression`] and [`template`] evaluate `${{ }}`; [`engine`] runs a plan against the small
//! interfaces in [`system`] and [`host`]; [`guest`] is the program that does so inside a machine.
//! Nothing here knows a forge's protocol, a virtual machine, C or TLS.

pub mod diagnostic;
pub mod engine;
pub mod expression;
pub mod fuzz;
pub mod guest;
pub mod host;
pub mod service;
pub mod system;
pub mod template;
pub mod workflow;
pub mod yaml;
