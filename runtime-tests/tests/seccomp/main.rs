//! The seccomp compiler against libseccomp (`oracle`) and against this machine's kernel (`kernel`).
//! libseccomp is linked: without its development files these tests do not build.

mod kernel;
mod oracle;
mod profiles;
mod sys;
