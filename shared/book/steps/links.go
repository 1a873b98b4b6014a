package steps

import (
	"path/filepath"
	"regexp"
	"strings"
)

// glossary is the file with one sentence for each term.
const glossary = "shared/book/glossary.md"

// mention finds links and the numbers of sections.
var mention = regexp.MustCompile(`\[[^\]]*\](?:\[[a-z]+\]|\([^)]*\))|§[0-9]+(?:\.[0-9]+)*`)

// number finds the numbers of sections in a link.
var number = regexp.MustCompile(`§[0-9]+(?:\.[0-9]+)*`)

// links checks in every README the links that help a reader with a word: to the
// glossary, and to the paper or the thesis where a section is first named.
func (k *checker) links() error {
	if !exists(k.repo.Root, glossary) {
		return nil
	}
	folders := []string{".", "shared"}
	for _, s := range k.stages {
		folders = append(folders, s.Name)
	}
	for _, folder := range folders {
		text, err := README(filepath.Join(k.repo.Root, folder))
		if err != nil {
			return err
		}
		if text == "" {
			continue
		}
		path := filepath.ToSlash(filepath.Join(folder, "README.md"))
		if !strings.Contains(text, filepath.Base(glossary)+")") {
			k.found(path, 0, "it does not link to the glossary: add a link to %s", glossary)
		}
		k.sectionLinks(path, text)
	}
	return nil
}

// sectionLinks finds sections whose first mention in a README is no link.
func (k *checker) sectionLinks(path, text string) {
	text = strings.Join(prose(text), "\n")
	named := make(map[string]bool)
	for _, at := range mention.FindAllStringIndex(text, -1) {
		found := text[at[0]:at[1]]
		for _, section := range number.FindAllString(found, -1) {
			if !named[section] && !strings.HasPrefix(found, "[") {
				k.found(path, 1+strings.Count(text[:at[0]], "\n"), "it names %s here first: make it a link to the paper or the thesis", section)
			}
			named[section] = true
		}
	}
}
