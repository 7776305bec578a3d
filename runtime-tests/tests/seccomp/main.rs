//! The seccomp compiler against libseccomp (`oracle`) and against this machine's kernel (`kernel`), and the
//! profile of images (`image`).
//! libseccomp is linked: without its development files these tests do not build.

mod image;
mod kernel;
mod oracle;
mod profiles;
mod sys;
