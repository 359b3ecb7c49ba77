// Package deploy is the API of drover: one type for each verb, with its options as
// fields and a method Run. The command line, the controller, schedules and programs
// that embed drover call it, and nothing below it orchestrates a whole verb.
//
// A verb prints nothing, asks nothing of the process (the environment is
// [Home.Environ]) and keeps nothing between two runs. It reports its steps as a
// stream of [Event]; the last one, and only that, has the kind [KindEnd]. Questions
// to a person go through [Person].
//
// Errors have types; [ClassOf] sorts them. A verb that made a release that is not
// what was asked for returns an [*OutcomeError] beside its result.
package deploy
