// Package browser tests the lab's page in Chromium, as a person uses it: it starts
// the lab of a stage, presses keys, clicks, and reads what the page shows.
//
// It is a module outside of go.work, because it needs chromedp, which no stage
// does. It also needs Chromium, and axe-core, which judges whether people who do
// not see or use a mouse can use the page:
//
//	cd shared/lab/browser
//	npm install --no-package-lock
//	GOWORK=off go test .
package browser
